"""How a policy is learned: one file, one algorithm.

Every algorithm module offers `Config`, `init`, `update`, `policy`, `new_policy`, `batches` and `plan_length` as plain
functions over pytrees; those that learn by acting `HOLDS_ACTION` too and, where they collect with a part of a plan,
`collecting`; those that learn from logs `chosen` and, where updates eat something else than windows of the data,
`prepare`; `judge` those whose Q a planner may search by. `algorithm(name)` imports one by its name, so that commands
which need none start quickly.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from legato.errors import unknown

MODULES = {
    "sac": "sac",
    "td3": "td3",
    "srl": "srl",
    "bc": "bc",
    "dt": "decision_transformer",
    "odt": "online_decision_transformer",
    "ds4": "decision_s4",
    "tt": "trajectory_transformer",
    "iql": "iql",
}
TUNERS = {
    "ds4-ac": "decision_s4_finetuning",
    "ds4-rw": "decision_s4_reweighted",
    "odt-online": "online_decision_transformer_finetuning",
}
NAMES = tuple(MODULES)


def algorithm(name: str) -> ModuleType:
    """The module of an algorithm; an unknown name raises `LegatoError` with the nearest known one."""
    if name not in NAMES:
        raise unknown("algorithm", name, NAMES)
    return importlib.import_module(f"legato.algorithms.{MODULES[name]}")


def tuner(name: str) -> ModuleType:
    """The module by which policies from logs go on learning; an unknown name raises `LegatoError` with the nearest."""
    if name not in TUNERS:
        raise unknown("way to fine-tune", name, TUNERS)
    return importlib.import_module(f"legato.algorithms.{TUNERS[name]}")
