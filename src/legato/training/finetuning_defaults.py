"""By what method a fine-tuning goes on, and with which options where nobody says otherwise. Imports no JAX."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from legato.algorithms import entries, finetuners_of
from legato.errors import LegatoError
from legato.training.run import Run
from legato.training.settings import FinetuneSettings, finetuning_preset


def choose_method(source: Run | str, method: str | None) -> str:
    """The fine-tuner of the policies of a run, or of an algorithm: this, or the usual one.

    Raises `LegatoError` where there is none.
    """
    algorithm = source if isinstance(source, str) else source.algorithm
    known = finetuners_of(algorithm)
    if isinstance(source, Run):
        if source.method is not None:
            start = (source.data or {}).get("start")
            again = f", or from '{start}', where it began" if start else ""
            raise LegatoError(f"'{source.place}' is a fine-tuning itself: go on with `resume={source.place}`{again}")
        if not known:
            able = " and ".join(name for name in entries() if finetuners_of(name))
            raise LegatoError(f"'{source.place}' is a run of {algorithm}, which cannot be fine-tuned: {able} can")
    if method is not None and method not in known:
        raise LegatoError(f"a policy of {algorithm} is fine-tuned by {' or '.join(known)}, not by '{method}'")
    return method or known[0]


def finetuning_defaults(
    before: Run | str, method: str, preset: str, environment: str | None = None
) -> tuple[Any, FinetuneSettings]:
    """The method's hyper-parameters and settings for the policies of a run, or from scratch for an algorithm's name.

    A run's seeds are kept, and the options and the time limit of its environment, where no other is named.
    """
    if isinstance(before, str):
        return finetuning_preset(preset, method, environment or "", scratch=True)
    config, settings = finetuning_preset(preset, method, environment or before.environment or "")
    settings = replace(settings, seed=before.seeds[0], seeds=len(before.seeds))
    if settings.env and settings.env == before.settings.env:
        options, limit = before.settings.env_options, before.settings.max_episode_steps
        settings = replace(settings, env_options=options, max_episode_steps=limit)
    return config, settings
