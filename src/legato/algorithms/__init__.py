"""How a policy is learnt: a folder is a family of algorithms, and a file in it one algorithm.

Beside its algorithms a folder has `config.py`: their hyper-parameters, presets and entries, which `entry` and `entries`
find here without importing JAX. What the functions of an algorithm's module are is written in `protocol`.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from legato.algorithms.entry import Entry, Learns
from legato.errors import LegatoError, unknown

FOLDERS = (
    *("sac", "td3", "temporl", "srl", "unrolled_sac"),
    *("bc", "decision_transformer", "decision_s4", "trajectory_transformer", "iql", "mbpo"),
)


@functools.cache
def _entries() -> dict[str, Entry]:
    configs = (importlib.import_module(f"{__name__}.{folder}.config") for folder in FOLDERS)
    return {entry.name: entry for config in configs for entry in config.ENTRIES}


def entries(*learns: Learns) -> dict[str, Entry]:
    """The entries by name: of what learns in one of these ways, or of all algorithms without the fine-tunings."""
    learns = learns or ("online", "offline")
    return {name: entry for name, entry in _entries().items() if entry.learns in learns}


def entry(name: str, *learns: Learns) -> Entry:
    """The entry of an algorithm, or with "finetuning" of a fine-tuner.

    Raises `LegatoError` for a name that is unknown among them, with the nearest.
    """
    known = entries(*learns)
    if name not in known:
        if (other := _entries().get(name)) is not None and other.continues:
            raise LegatoError(f"'{name}' fine-tunes policies of {' and '.join(other.continues)}: it goes on with a run")
        raise unknown("fine-tuner" if learns == ("finetuning",) else "algorithm", name, known)
    return known[name]


def algorithm(name: str) -> ModuleType:
    """The module of an algorithm; an unknown name raises `LegatoError` with the nearest."""
    return entry(name).load()


def finetuner(name: str) -> ModuleType:
    """The module of a fine-tuner; an unknown name raises `LegatoError` with the nearest."""
    return entry(name, "finetuning").load()


def finetuners_of(name: str) -> tuple[str, ...]:
    """The fine-tuners of an algorithm's policies, the usual one first; none for an unknown one."""
    return tuple(method for method, found in entries("finetuning").items() if name in found.continues)
