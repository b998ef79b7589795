"""What stored arrays are called now, after what they were called once: older policies and checkpoints are read by this.

One line for each rename. A name that is still in use is left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# Parts of the path to an array of a policy or a learner, such as `facts` in `network.facts.scale`.
LEAVES = {
    "anchor": "reference_actor",
    "change": "mean_square_delta",
    "ends": "termination_model",
    "facts": "statistics",
    "trust": "regularisation_scale",
}

# What a loop keeps beside its learner in a checkpoint, by the path to it.
STATES = {
    "kept": "best_deployed",
    "memory": "replay",
    "met": "replay_metrics",
    "open": "running_episodes",
    "loop/asks": "loop/eval_target",
    "loop/best_asks": "loop/best_target",
    "loop/held": "loop/held_decisions",
    "loop/level": "loop/offline_return",
    "loop/prompt": "loop/episode_target",
    "loop/recent": "loop/episodes",
    "loop/tries": "loop/collect_target",
    "loop/trust": "loop/target_scale",
}


def present_leaves(arrays: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Arrays by the paths that lead to them now, of which these are `known`."""

    def present(path: str) -> str:
        return path if path in known else ".".join(LEAVES.get(part, part) for part in path.split("."))

    return {present(path): array for path, array in arrays.items()}


def with_present_states(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state, with today's names beside older ones."""
    found = dict(state)
    for old, now in STATES.items():
        *folder, old_name = old.split("/")
        name = now.split("/")[-1]
        place = found
        for part in folder:
            place[part] = dict(place.get(part, {}))
            place = place[part]
        if old_name in place:
            place.setdefault(name, place[old_name])
    return found
