"""A saved policy, ready to act, with what it may be loaded with: a planner, another search, a critic.

What trains, plays or draws is not imported here: a control loop waits for this module and has its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from legato.algorithms import entries, entry
from legato.algorithms.protocol import Parts
from legato.errors import LegatoError
from legato.policy import guard_computation
from legato.training import policy_file
from legato.training.policy_file import LoadedPolicy
from legato.training.run import Run, Which


@guard_computation
def load(
    path: str | Path,
    seed: int | None = None,
    which: Which = "last",
    *,
    critic: str | Path | None = None,
    search: Mapping[str, Any] | None = None,
) -> LoadedPolicy:
    """A saved policy, ready to act, from a run folder (of `seed`, `last` or `best`) or from a policy folder.

    A Trajectory Transformer that searches for return does so by the Q of a `critic`, a run or policy folder of `iql`,
    instead of by its own values: TT(+Q). Of a run it is the same seed's, if it has one, and otherwise the first.
    How it looks for a plan may differ from what it was trained with: `search={"beams": 32, "horizon": 5}`.

    With `search={"planner": "mppi"}` the actor of an SRL, USAC, MBPO, CMLO or MOPO run is not asked alone: plans are
    looked for, by MPPI or CEM (`cem`), in the model and by the critics of the run's newest checkpoint, or imagined
    action by action (`unrolled`); the other options are those of `planning.shooting.Shooting`.
    """
    loaded = policy_file.load(_policy(path, seed, which))
    if critic is None:
        return compose(loaded, search, run=path) if search else loaded
    seeds = Run(critic).seeds if (Path(critic) / "config.json").exists() else []
    trained = loaded.card.extra.get("seed", seed)
    same = trained if trained in seeds else seeds[0] if seeds else None
    return compose(loaded, search, critic=policy_file.load(_policy(critic, same, which)), run=path)


def describe_search(critic: str | Path | None, search: Mapping[str, Any] | None) -> list[str]:
    """What a label says of a policy that is played otherwise than it was trained: `Q`, `planner=unrolled`."""
    return [*(["Q"] if critic is not None else []), *(f"{name}={x}" for name, x in (search or {}).items())]


def compose(
    loaded: LoadedPolicy,
    options: Mapping[str, Any] | None = None,
    *,
    critic: LoadedPolicy | None = None,
    run: str | Path | None = None,
) -> LoadedPolicy:
    """The policy, played otherwise than it was trained (see `load`), with what else its `run` has learnt.

    Raises `LegatoError` where its algorithm knows no other way, and where policy, options and critic do not fit.
    """
    card = loaded.card
    found = entry(card.algorithm)
    if "compose" not in found.offers:
        *others, last = (name for name, other in entries().items() if "compose" in other.offers)
        able = f"{', '.join(others)} and {last}"
        raise LegatoError(f"a policy of '{card.algorithm}' takes no search and no critic: those of {able} do")

    def learner() -> Any:
        if run is None or not (Path(run) / "config.json").exists():
            name = "this" if run is None else f"'{run}'"
            raise LegatoError(f"{name} is a policy alone: model and critics to plan with are in its run's checkpoint")
        return policy_file.newest_learner(Run(run), card.extra["seed"])

    parts = Parts(learner, None if critic is None else _q_function(critic, loaded))
    config, policy = found.function("compose")(card.config, loaded.policy, options or {}, parts)
    return LoadedPolicy(policy, replace(card, config=config))


def _q_function(critic: LoadedPolicy, policy: LoadedPolicy) -> Any:
    """What actions are worth by another policy. Raises `LegatoError` for one without a Q or of other sizes."""
    card = critic.card
    found = entry(card.algorithm)
    if "q_function" not in found.offers:
        able = " or ".join(name for name, other in entries().items() if "q_function" in other.offers)
        raise LegatoError(f"a policy of '{card.algorithm}' has no Q to search by; train {able} on the same data")
    if critic.spec != policy.spec:
        raise LegatoError(f"the critic judges {critic.spec.describe()}; the policy has {policy.spec.describe()}")
    return found.function("q_function")(card.config, critic.policy)


def _policy(path: str | Path, seed: int | None, which: Which) -> Path:
    if not isinstance(path, str | Path):
        raise LegatoError(f"a policy is in a run folder or a policy folder; {path!r} was given")
    path = Path(path)
    return Run(path).policy_path(seed, which) if (path / "config.json").exists() else path
