"""Which loop a user's training or fine-tuning is for: learning by acting or from logs, begun or resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from legato.algorithms import entries
from legato.envs import Env, check_options, resolve_environment
from legato.errors import LegatoError
from legato.training import finetune as finetuning
from legato.training import offline, online
from legato.training.finetuning_defaults import choose_method, finetuning_defaults
from legato.training.run import Run
from legato.training.settings import FinetuneSettings, OfflineSettings, Settings, from_scratch, override
from legato.training.settings import preset as named_preset


def start_training(
    algorithm: str | None,
    env: Env | None,
    dataset: Any,
    preset: str,
    out: str | Path | None,
    options: dict[str, Any],
    *,
    from_step: int | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
) -> Run:
    """A new run of the loop that the algorithm learns in. Raises `LegatoError` for what does not fit."""
    dataset = dataset_name(dataset)
    _refuse_without_resume(from_step, fresh_episodes)
    options = _checked(options)
    env = None if env is None else resolve_environment(env)
    if algorithm in entries("offline"):
        if dataset is None:
            raise LegatoError(f"{algorithm} learns from logs: train('{algorithm}', dataset='my_logs.hdf5')")
        config, settings = override(*named_preset(preset, algorithm, dataset), **{"env": env or "", **options})
        return offline.start(algorithm, preset, config, cast(OfflineSettings, settings), out, quiet=quiet)
    if algorithm is None or env is None:
        raise LegatoError("train needs an algorithm and an environment, such as train('srl', 'Pendulum-v1')")
    if dataset is not None:
        raise LegatoError(
            f"{algorithm} learns by acting, not from logs; those that do: {', '.join(entries('offline'))}"
        )
    config, settings = override(*named_preset(preset, algorithm, env), **options)
    return online.start(algorithm, preset, config, cast(Settings, settings), out, quiet=quiet)


def resume_training(
    path: str | Path,
    kept: tuple[Any, ...],
    env: Env | None,
    dataset: Any,
    options: Mapping[str, Any],
    *,
    from_step: int | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
) -> Run:
    """The run in `path`, gone on with. Raises `LegatoError` for anything that it was given to be `kept`."""
    dataset = dataset_name(dataset)
    if any(given is not None for given in kept) or options.keys() - {"env_options", "steps", "updates"}:
        advice = "give only `resume`, and `steps` or `updates` for a later end"
        raise LegatoError(f"a resumed run keeps its algorithm, environment and options: {advice}")
    stopped = Run(path)
    stopped.confirm(env, options.get("env_options"))
    if stopped.method is not None:
        raise LegatoError(f"'{path}' is a fine-tuning: resume it with finetune instead of train")
    if stopped.algorithm in entries("offline"):
        if fresh_episodes:
            raise LegatoError(f"'{path}' learns from logs and plays no episodes: leave out `fresh_episodes`")
        stopped.extend("steps", options.get("steps"))  # to say that these are counted in updates
        return offline.resume(path, from_step, updates=options.get("updates"), quiet=quiet, dataset=dataset)
    if dataset is not None:
        raise LegatoError(f"'{path}' learns by acting, not from logs: leave out `dataset`")
    stopped.extend("updates", options.get("updates"))  # to say that these are counted in steps
    how = {"steps": options.get("steps"), "quiet": quiet, "fresh_episodes": fresh_episodes}
    return online.resume(path, from_step, **how)


def start_finetuning(
    source: Run | str | Path | None,
    env: Env | None,
    dataset: Any,
    preset: str,
    out: str | Path | None,
    options: dict[str, Any],
    *,
    method: str | None = None,
    base: Mapping[str, Any] | None = None,
    from_step: int | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
) -> Run:
    """A new fine-tuning of a run, or of an algorithm from scratch. Raises `LegatoError` for what does not fit."""
    dataset = dataset_name(dataset)
    _refuse_without_resume(from_step, fresh_episodes)
    if source is None:
        raise LegatoError("finetune needs a run with policies from logs: finetune('runs/ds4-...', 'Hopper-v4')")
    scratch = isinstance(source, str | Path) and from_scratch(source)
    before = str(source) if scratch else source if isinstance(source, Run) else Run(source)
    method = choose_method(before, method)
    options = _checked(options)
    config, settings = finetuning_defaults(before, method, preset, None if env is None else resolve_environment(env))
    if "env_options" in options:  # those of the run go on beside them
        options["env_options"] = {**settings.env_options, **options["env_options"]}
    config, settings = override(config, settings, **options)
    path = before.path if isinstance(before, Run) else before
    how = {"base": base, "dataset": dataset, "quiet": quiet}
    return finetuning.start(path, method, preset, config, cast(FinetuneSettings, settings), out, **how)


def resume_finetuning(
    path: str | Path,
    kept: tuple[Any, ...],
    env: Env | None,
    dataset: Any,
    options: Mapping[str, Any],
    *,
    from_step: int | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
) -> Run:
    """The fine-tuning in `path`, gone on with. Raises `LegatoError` for anything that it was given to be `kept`."""
    dataset_name(dataset)
    if any(given is not None for given in kept) or options.keys() - {"env_options", "steps"}:
        advice = "give only `resume`, and `steps` for a later end"
        raise LegatoError(f"a resumed run keeps its policies, environment and options: {advice}")
    stopped = Run(path)
    if stopped.method is None:
        raise LegatoError(f"'{path}' is no fine-tuning: resume it with train instead of finetune")
    stopped.confirm(env, options.get("env_options"))
    how = {"steps": options.get("steps"), "quiet": quiet, "fresh_episodes": fresh_episodes}
    return finetuning.resume(path, from_step, **how)


def dataset_name(dataset: Any) -> str | None:
    """The name of a dataset. Raises `LegatoError` for one in memory: a run reads its logs again when it goes on."""
    if dataset is None or isinstance(dataset, str | Path):
        return None if dataset is None else str(dataset)
    advice = "write it to a file first, legato.data.formats.save(data, 'logs.npz')"
    raise LegatoError(f"a dataset is a file, a folder or a Minari id; {type(dataset).__name__} was given: {advice}")


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, those of the environment as a run keeps them."""
    if "env_options" not in options:
        return options
    return {**options, "env_options": check_options(options["env_options"] or {})}


def _refuse_without_resume(from_step: int | None, fresh_episodes: bool) -> None:
    name = "fresh_episodes" if fresh_episodes else "from_step"
    if fresh_episodes or from_step is not None:
        raise LegatoError(f"`{name}` is how a run is resumed: give `resume` too")
