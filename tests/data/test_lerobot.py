"""LeRobot folders, written by their published layout, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.test_layouts import ACTIONS, LENGTHS, OBSERVATIONS, OFFSETS, REWARDS

from legato.data import importing
from legato.data.tables import Columns
from legato.errors import LegatoError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FEATURES = {
    "observation.state": {"dtype": "float32"},
    "action": {"dtype": "float32"},
    "next.reward": {"dtype": "float32"},
}
FEATURES |= {"observation.images.top": {"dtype": "video"}}


def rows(episodes: list[int]) -> Any:
    """The rows of these episodes, vectors as lists of one length."""

    def vectors(array: np.ndarray) -> Any:
        flat = pyarrow.array(array.astype(np.float32).ravel())
        return pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])

    at = np.concatenate([np.arange(OFFSETS[i], OFFSETS[i + 1]) for i in episodes])
    frames = np.concatenate([np.arange(LENGTHS[i]) for i in episodes])
    return pyarrow.table(
        {
            "observation.state": vectors(OBSERVATIONS[at]),
            "action": vectors(ACTIONS[at]),
            "next.reward": REWARDS[at].astype(np.float32),
            "next.success": np.isin(at, OFFSETS[2:3] - 1),
            "timestamp": (frames / 30).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.repeat(episodes, [LENGTHS[i] for i in episodes]),
        }
    )


def folder(path: Path, version: str) -> Path:
    (path / "meta").mkdir(parents=True)
    info = {"codebase_version": version, "fps": 30, "robot_type": "arm", "features": FEATURES}
    (path / "meta" / "info.json").write_text(json.dumps(info))
    files = {"v3.0": {"file-000": [0, 1], "file-001": [2]}, "v2.1": {f"episode_00000{i}": [i] for i in range(3)}}
    (path / "data" / "chunk-000").mkdir(parents=True)
    for name, episodes in files.get(version, {"file-000": [0]}).items():
        parquet.write_table(rows(episodes), path / "data" / "chunk-000" / f"{name}.parquet")
    return path


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_episodes_come_back_as_they_were(version: str, tmp_path: Path) -> None:
    data, said = importing.read(folder(tmp_path / "arm", version))
    np.testing.assert_array_equal(data.offsets, OFFSETS)
    np.testing.assert_array_equal(data.observations, OBSERVATIONS.astype(np.float32))
    np.testing.assert_array_equal(data.actions, ACTIONS.astype(np.float32))
    np.testing.assert_array_equal(data.rewards, REWARDS.astype(np.float32))
    assert not data.terminations.any() and data.truncations.sum() == 3 and data.final_observations is None
    assert "30 frames a second: a step is 0.0333333 s" in said and any("videos are not read" in s for s in said)


def test_a_column_may_say_which_episodes_terminated(tmp_path: Path) -> None:
    data, _ = importing.read(folder(tmp_path / "arm", "v3.0"), Columns(terminal="next.success"))
    np.testing.assert_array_equal(np.flatnonzero(data.terminations), [OFFSETS[2] - 1])


def test_what_is_no_such_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, words in (("v9", "is of LeRobot's version v9; read are v2.0, v2.1, v3.0"),):
        with pytest.raises(LegatoError, match=words):
            importing.read(folder(tmp_path / name, name))
    lacking = folder(tmp_path / "lacking", "v2.1")
    table = rows([1])
    parquet.write_table(table.slice(1), lacking / "data" / "chunk-000" / "episode_000001.parquet")
    with pytest.raises(LegatoError, match="lacks frames"):
        importing.read(lacking)
    for file in (lacking / "data").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(LegatoError, match="has no data/chunk"):
        importing.read(lacking)
