"""Old names of options and of stored arrays, by tables of the tests' own: what is read, and what is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato import options
from legato.cli import parsing
from legato.errors import LegatoError
from legato.training import files, renamed
from legato.training.checkpoint import Checkpoints
from legato.training.policy_file import fill, match
from legato.training.settings import Settings, change_options, override


@dataclass(frozen=True)
class Config:
    window: int = 3
    rate: float = 0.5
    steps: int = 1
    RETIRED: ClassVar[dict[str, Any]] = {"gone": 0}


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memory` was the name of two options of different dataclasses; `steps` is a name that is in use."""
    table = (("memory", "window"), ("memory", "elsewhere"), ("tempo", "rate"), ("steps", "rate"))
    monkeypatch.setattr(options, "RENAMED", table)
    monkeypatch.setattr(renamed, "LEAVES", {"facts": "statistics", "scale": "unit"})
    monkeypatch.setattr(renamed, "STATES", {"memory": "replay", "loop/asks": "loop/target", "loop/lost": "loop/found"})


def test_values_of_files_come_under_the_names_of_today() -> None:
    found = files.instance(Config, {"memory": 7, "tempo": 0.25, "steps": 4, "gone": 0}, "config")
    assert found == Config(7, 0.25, 4)
    assert files.instance(Config, {"window": 8, "memory": 7}, "config").window == 8
    with pytest.raises(files.Unfit, match="config has 'tampo', which there is not"):
        files.instance(Config, {"tampo": 0.25}, "config")
    with pytest.raises(files.Unfit, match=r"config\.window must be a whole number"):
        files.instance(Config, {"memory": "much"}, "config")


def test_whoever_names_an_option_as_it_was_called_is_told_its_name() -> None:
    told = "^`tempo` is called `rate` now$"
    with pytest.raises(LegatoError, match=told):
        override(Config(), Settings(), tempo=0.1)
    with pytest.raises(LegatoError, match=told):
        change_options("dt", Config(), {"tempo": 0.1})
    with pytest.raises(LegatoError, match=told):
        options.require_types({"rate": float}, {"tempo": 0.1}, "search")
    with pytest.raises(LegatoError, match=r"unknown option 'rote'; did you mean 'rate'"):
        override(Config(), Settings(), rote=0.1)
    assert override(Config(), Settings(), steps=5)[0].steps == 5  # a name that is in use


def test_commands_tell_the_name_of_today() -> None:
    known = ["--window", "--rate", "--steps"]
    for flag in ("--tempo", "--no-tempo"):
        told = str(parsing.unknown_option(flag, known, "legato train"))
        assert told.endswith("tempo' is called '--rate' now")
    assert "did you mean '--rate'" in str(parsing.unknown_option("--rote", known, "legato train"))


class Statistics(eqx.Module):
    unit: jax.Array


class Policy(eqx.Module):
    weight: jax.Array
    statistics: Statistics
    scale: jax.Array


def test_arrays_are_found_under_the_paths_that_once_led_to_them() -> None:
    skeleton = Policy(jnp.zeros(2), Statistics(jnp.zeros(())), jnp.zeros(()))
    old = {"weight": np.ones(2, np.float32), "facts.scale": np.float32(3), "scale": np.float32(5)}
    found = fill(skeleton, {name: np.asarray(array) for name, array in old.items()}, "here")
    assert found.weight.tolist() == [1, 1]
    assert (float(found.statistics.unit), float(found.scale)) == (3, 5)  # `scale` itself is still in use
    match(skeleton, {name: np.asarray(array) for name, array in old.items()}, "here")
    with pytest.raises(LegatoError, match=r"'here' lacks 'statistics.unit'"):
        match(skeleton, {"weight": np.ones(2, np.float32), "fact.scale": np.float32(3), "scale": np.float32(5)}, "here")


def test_states_of_checkpoints_are_found_by_both_names(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(5, {"memory": {"rows": np.arange(3)}, "loop": {"asks": np.ones(2), "step": np.array(5)}})
    checkpoints.wait()
    _, state = checkpoints.load()
    checkpoints.close()
    assert state["replay"]["rows"].tolist() == [0, 1, 2]
    assert state["loop"]["target"].tolist() == [1, 1]
    assert state["loop"]["step"] == 5
    assert "found" not in state["loop"]
    kept = renamed.with_present_states({"memory": {}, "replay": {"rows": np.ones(1)}})
    assert kept["replay"] == {"rows": np.ones(1)}  # the present name counts
