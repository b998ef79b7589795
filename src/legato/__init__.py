"""Legato: sequence-model reinforcement learning. Policies that read a history and write a sequence of actions.

>>> import legato
>>> run = legato.train("srl", "Pendulum-v1", horizon=8)
>>> print(legato.evaluate(run).fas)
>>> policy = legato.load(run.path)
"""

from typing import TYPE_CHECKING, Any

from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.api import action_errors, attention, collect, compare, evaluate, finetune, metrics, play, train
    from legato.loading import load

__version__ = "0.1.0"
__all__ = ["LegatoError", "__version__", "action_errors", "attention", "collect", "compare", "evaluate", "finetune"]
__all__ += ["load", "metrics", "play", "train"]


def __getattr__(name: str) -> Any:
    """The functions load on first use, so that `import legato` and the commands' help stay quick."""
    if name == "load":  # without what trains
        from legato.loading import load

        return load
    if name == "data":
        import legato.data

        return legato.data
    if name in __all__:
        import legato.api

        return getattr(legato.api, name)
    raise AttributeError(f"module 'legato' has no attribute '{name}'")
