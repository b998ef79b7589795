"""Datasets from file to file, from Python; and that the package offers this without loading it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.test_trajectories import same
from tests.test_house import python
from tests.tiny import swings

import legato.data
from legato.data.formats import load, save
from legato.data.report import report
from legato.errors import LegatoError


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    save(swings(), tmp_path / "logs.npz")
    return tmp_path / "logs.npz"


def test_what_is_returned_is_what_was_written(logs: Path) -> None:
    data, folder = load(logs), logs.parent
    same(legato.data.convert(logs, folder / "logs.hdf5"), data)
    np.testing.assert_array_equal(load(folder / "logs.hdf5").actions, data.actions)
    first, second = legato.data.split(logs, (folder / "a.npz", folder / "b.npz"), fraction=0.75, seed=1)
    assert (len(first), len(second)) == (9, 3)
    np.testing.assert_array_equal(load(folder / "b.npz").observations, second.observations)
    both = legato.data.merge([folder / "a.npz", folder / "b.npz"], folder / "both.npz")
    assert (len(both), both.steps) == (len(data), data.steps)
    np.testing.assert_array_equal(load(folder / "both.npz").lengths, both.lengths)


def test_logs_of_another_layout_are_imported_and_what_was_decided_is_said(logs: Path) -> None:
    data = load(logs)
    others = logs.parent / "others.npz"
    rewards, terminals = data.rewards, data.terminations
    assert rewards is not None
    np.savez(others, observations=data.observations, actions=data.actions, rewards=rewards, terminals=terminals)
    found, decisions = legato.data.import_logs(others, logs.parent / "mine.npz")
    np.testing.assert_array_equal(found.lengths, data.lengths)
    assert all(isinstance(decision, str) for decision in decisions)
    assert (logs.parent / "mine.npz").exists()


def test_what_is_said_of_a_file_is_said_of_the_same_in_memory(logs: Path) -> None:
    found = legato.data.info(logs)
    assert found == report(load(logs))
    assert dict(found.summary)["steps"] == str(load(logs).steps)
    assert [row[0] for row in found.ranges] == ["observation 0", "observation 1", "observation 2", "action 0"]


def test_nothing_is_overwritten_and_nothing_begun_in_vain(logs: Path) -> None:
    taken = logs.parent / "taken.npz"
    taken.write_text("precious")
    for begin in (
        lambda: legato.data.convert("nowhere.npz", taken),
        lambda: legato.data.import_logs("nowhere.npz", taken),
        lambda: legato.data.merge(["nowhere.npz"], taken),
        lambda: legato.data.split("nowhere.npz", (logs.parent / "new.npz", taken)),
    ):
        with pytest.raises(LegatoError, match=r"taken.npz' exists and is not overwritten"):
            begin()
    assert taken.read_text() == "precious"
    with pytest.raises(LegatoError, match="cannot take both parts; name two"):
        legato.data.split(logs, ("a.npz", "a.npz"))
    with pytest.raises(LegatoError, match="merge needs at least one dataset"):
        legato.data.merge([], "a.npz")


def test_the_package_offers_them_and_loads_them_late() -> None:
    code = "import legato, sys; d = legato.data; print('numpy' in sys.modules, d.info.__name__, 'numpy' in sys.modules)"
    assert python(code).stdout.split() == ["False", "info", "True"]
    for name in legato.data.__all__:
        assert callable(getattr(legato.data, name))
    with pytest.raises(AttributeError, match=r"module 'legato.data' has no attribute 'lod'"):
        _ = legato.data.lod  # type: ignore[attr-defined]
