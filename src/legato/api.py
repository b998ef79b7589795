"""Legato from Python: train, evaluate, compare, collect, play, load. The commands are these functions, printed.

What plays and measures is defined in the rooms that it is imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legato.envs import Env
from legato.evaluation.attention import attention
from legato.evaluation.collect import collect
from legato.evaluation.compare import compare
from legato.evaluation.evaluate import evaluate
from legato.evaluation.finetuning import with_figure
from legato.evaluation.imitation import action_errors
from legato.evaluation.metrics import metrics
from legato.evaluation.play import play
from legato.evaluation.prediction import predict
from legato.loading import load
from legato.policy import guard_computation
from legato.training import dispatch
from legato.training.run import Run

__all__ = ["action_errors", "attention", "collect", "compare", "evaluate", "finetune", "load", "metrics", "play"]
__all__ += ["predict", "train"]


@guard_computation
def train(
    algorithm: str | None = None,
    env: Env | None = None,
    *,
    dataset: str | Path | None = None,
    preset: str = "cpu",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_step: int | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train an algorithm on an environment or on logged episodes, in a new run folder, or `resume` a run.

    `options` override any hyper-parameter or setting of the preset: `train("srl", "Pendulum-v1", horizon=8, seeds=4)`.
    What learns from logs (see `legato list algorithms`) needs a `dataset`; with an `env` it is evaluated on the way.

    `env` is a Gymnasium id, `module:Id` of one that a module registers, or a function or class that makes it;
    `env_options={...}` are arguments of its constructor and `max_episode_steps` is a time limit. The run keeps them,
    a function as `module:qualname`. Module and function are not found by a file alone: who resumes or evaluates the
    run in another process gives them again (`train(resume=run, env=make_env)`).

    A run is resumed to the end that it was given, with the numbers of one never stopped, or to a later one:
    `train(resume=run, steps=20_000)`, or `updates` of what learns from logs. It goes on from its newest checkpoint, or
    from the older one of `from_step`, and newer ones are discarded. Where its dataset is now, if it was moved,
    `dataset` says; an environment that does not repeat itself from its seed goes on with `fresh_episodes`, and then the
    numbers differ.

    Raises `LegatoError` for anything that does not fit, before the folder is made.
    """
    how = {"from_step": from_step, "fresh_episodes": fresh_episodes, "quiet": quiet}
    if resume is not None:
        return dispatch.resume_training(resume, (algorithm, out), env, dataset, options, **how)
    return dispatch.start_training(algorithm, env, dataset, preset, out, options, **how)


@guard_computation
def finetune(
    source: Run | str | Path | None = None,
    env: Env | None = None,
    *,
    method: str | None = None,
    preset: str = "cpu",
    base: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_step: int | None = None,
    dataset: str | Path | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Let a run's policies go on learning by acting, in a new run folder; or `resume` that.

    `source` is a run of what can be fine-tuned, `env` by default the one of its data. The offline policies
    are not touched: the new run carries a copy of them (`start`), beside its `last` and its `best`, which is never
    worse by its own evaluations. `options` override any hyper-parameter or setting, as in
    `finetune(run, "Hopper-v4", steps=50_000)`. With the name of an algorithm for a source it begins from scratch:
    `finetune("ds4", "Pendulum-v1", target=-150)`, with hyper-parameters of its own that are the preset's, but for those
    in `base`: `base={"channels": 32, "layers": 1}`.
    Some fine-tuners read the logs again, which may have moved to another `dataset`. `from_step` and
    `fresh_episodes` are those of `train`.
    Raises `LegatoError` for anything that does not fit, before the folder is made or the replay allocated.
    """
    how = {"from_step": from_step, "fresh_episodes": fresh_episodes, "quiet": quiet}
    if resume is not None:
        kept = (source, method, out, base or None)
        return with_figure(dispatch.resume_finetuning(resume, kept, env, dataset, options, **how))
    run = dispatch.start_finetuning(source, env, dataset, preset, out, options, method=method, base=base, **how)
    return with_figure(run)
