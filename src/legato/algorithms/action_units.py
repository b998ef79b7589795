"""In which units actions are learnt: what algorithms share that have the option `action_units`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from legato.data import dataset_statistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoWarning


def warn_of_units(spec: Spec, environment: str) -> None:
    """Warns where bounds are too far from [-1, 1] for what is learnt in the environment's own units."""
    low, high = np.array(spec.low), np.array(spec.high)
    half, middle = (high - low) / 2, (high + low) / 2
    strange = (half < 0.2) | (half > 5) | (np.abs(middle) > half)  # below e^-1 / 2 an entropy of -1 cannot be reached
    if strange.any():
        i = int(strange.argmax())
        warnings.warn(
            f"action[{i}] of '{environment}' lies in [{low[i]:g}, {high[i]:g}], and is learnt in these units: "
            "action_units bounds learns the same whatever the unit",
            LegatoWarning,
            stacklevel=4,
        )


def for_data(config: Any, spec: Spec, data: Trajectories) -> Any:
    """The hyper-parameters with `action_units` as the data decides, where they leave it to the data ("auto")."""
    if config.action_units != "auto":
        return config
    return replace(config, action_units=dataset_statistics.units_of(data, spec))
