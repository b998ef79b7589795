"""Datasets that strangers made are read, or refused in one line, within bounds of time and memory.

`python -m tests.hostile --datasets 2500` tries more of them.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests import hostile, limits
from tests.data.test_trajectories import raw

from legato.data import formats
from legato.errors import LegatoError, LegatoWarning


def test_hostile_datasets_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    found = hostile.read_all(range(250), tmp_path)
    assert all(outcome.good for outcome in found), limits.report(found)
    assert {"read", "refused"} == {outcome.kind for outcome in found}


def npz(path: Path, **bodies: bytes) -> Path:
    """An archive of a good set, of which some members are replaced by these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in raw([3, 2]).items():
            archive.writestr(f"{name}.npy", bodies.pop(name, None) or hostile.npy(array))
        for name, body in bodies.items():
            archive.writestr(f"{name}.npy", body)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(LegatoError) as problem:
        formats.load(path)
    return str(problem.value)


def test_what_an_archive_claims_is_held_against_its_length(tmp_path: Path) -> None:
    three = np.zeros((5, 2))
    long = hostile.npy(three, shape=(10**18, 2))
    assert "'rewards' claims shape (1000000000000000000, 2)" in refusal(npz(tmp_path / "long.npz", rewards=long))
    zeros = hostile.npy(three[:0], shape=(9 << 20, 1)) + bytes(72 << 20)
    said = refusal(npz(tmp_path / "bomb.npz", rewards=zeros))
    assert "more than 10 times its length is not read" in said and "shape (9437184, 1)" in said
    hidden = hostile.npy(three[:0], shape=(10**15, 0))  # of which no number is there
    assert "(1000000000000000, 0)" in refusal(npz(tmp_path / "hidden.npz", observations=hidden))
    with pytest.warns(LegatoWarning, match="not read: other"):
        formats.load(npz(tmp_path / "unread.npz", other=zeros))  # nobody asks for it


def test_archives_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    path = npz(tmp_path / "secret.npz")
    body = bytearray(path.read_bytes())
    body[body.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(body)
    assert "'observations' is encrypted; write it without a password" in refusal(path)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "other.npz", "w", method) as archive:
            archive.writestr("actions.npy", hostile.npy(np.zeros(3)))
        assert f"compressed by method {method}; write it by numpy.savez" in refusal(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "crowd.npz", "w") as archive:
        for i in range(3000):
            archive.writestr(f"{i}/{'x' * 400}.npy", b"")
    assert "its table of contents is longer" in refusal(tmp_path / "crowd.npz")


@pytest.mark.parametrize("name", ["logs.npz", "logs.hdf5", "logs.arrays/rewards.npy"])
def test_pipes_and_devices_are_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "logs.arrays").mkdir()
    source = tmp_path / name.partition("/")[0]
    os.mkfifo(tmp_path / name)
    assert "is no regular file: put the file itself there" in refusal(source)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert "is no regular file: put the file itself there" in refusal(source)


def test_files_with_holes_hold_what_is_on_the_disk(tmp_path: Path) -> None:
    formats.save(formats.load(npz(tmp_path / "a.npz")), tmp_path / "logs.arrays")
    path = tmp_path / "logs.arrays" / "observations.npy"
    path.write_bytes(hostile.npy(np.zeros((0, 2)), shape=(10**10, 2)))
    with path.open("r+b") as file:
        file.truncate(10**12)
    assert "observations.npy' cannot be read, it is cut or no plain array: it claims" in refusal(
        tmp_path / "logs.arrays"
    )


SPARSE: dict[str, Any] = {"dtype": "<f8", "chunks": (1000,), "compression": "gzip"}


@pytest.mark.parametrize(
    ("name", "made", "words"),
    [
        ("actions", h5py.ExternalLink("other.hdf5", "actions"), "has no actions; it holds"),
        ("actions", h5py.SoftLink("/rewards"), "has no actions; it holds"),
        (
            "rewards",
            {"shape": (5,), "dtype": "<f8", "external": [("other.hdf5", 0, 40)]},
            "'rewards' lie in other files",
        ),
        ("rewards", {"shape": (10**15,), **SPARSE}, "'rewards' with shape (1000000000000000,): more than 10 times"),
        ("rewards", {"shape": (5,), "dtype": "<f8", "chunks": (1 << 28,), "maxshape": (None,)}, "more than 10 times"),
        ("rewards", {"data": h5py.Empty("f4")}, "'rewards' holds nothing; leave it out"),
        ("rewards", {"data": np.zeros(5, [("a", "<f4")])}, "not plain numbers"),
        ("rewards", {"shape": (5,), "dtype": h5py.ref_dtype}, "not plain numbers"),
        ("environment", {"data": b"\xff\xfe", "dtype": h5py.string_dtype()}, "cannot be read"),
        ("environment", {"data": "a\x1b[31m"}, "environment is an id of printable characters"),
        ("rewards", "virtual", "the numbers of 'rewards' lie in other files"),
    ],
)
def test_hdf5_leads_nowhere_else_and_claims_no_more_than_it_is_long(
    name: str, made: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    formats._write_hdf5(Path("logs.hdf5"), raw([3, 2]))
    formats._write_hdf5(Path("other.hdf5"), raw([3, 2]))
    with h5py.File("logs.hdf5", "a") as file:
        if name in file:
            del file[name]
        if isinstance(made, dict):
            file.create_dataset(name, **made)
        elif made == "virtual":
            layout = h5py.VirtualLayout((5,), "<f8")
            layout[...] = h5py.VirtualSource("other.hdf5", "rewards", (5,))
            file.create_virtual_dataset(name, layout)
        else:
            file[name] = made
    assert words in refusal(Path("logs.hdf5"))


def test_what_float32_has_no_place_for_is_refused_with_its_step(tmp_path: Path) -> None:
    for name, index in (("observations", (3, 1)), ("rewards", (3,)), ("actions", (3, 0))):
        given = raw([3, 2])
        given[name][index] = 1e39
        np.savez(tmp_path / "large.npz", **given)
        assert f"the {name} of step 0 of episode 1 are not finite" in refusal(tmp_path / "large.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offsets": np.array([0, np.nan, 5])}, "run from 0 to the number of steps, 5"),
        ({"offsets": np.array([0, 2**63 - 1, -(2**63), 5])}, "run from 0 to the number of steps, 5"),
        ({"terminations": np.array([0, 0, np.nan, 0, 1])}, "that of step 2 of 5 is not finite"),
        ({"actions": np.zeros((5, 3)), "choices": 3}, "one of 3 choices for an action, but actions of shape (5, 3)"),
        ({"observations": np.zeros((5, 0))}, "of no numbers at all"),
        ({"observations": np.zeros((5, 2), complex)}, "no plain array"),
        ({"choices": 0.5}, "choices is a whole number from 1 to"),
        ({"choices": [3]}, "step 0 of episode 0 has action"),
        ({"low": [1.0], "high": [1e39]}, "numbers that float32 has no place for"),
        ({"low": [1.0]}, "as many upper bounds as lower ones"),
        ({"low": [1.0], "high": [0.0]}, "a lower bound lies above its upper one"),
        ({"environment": [1, 2]}, "environment is an id of printable characters"),
    ],
)
def test_numbers_of_other_kinds_are_refused_in_one_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {**raw([3, 2]), **changes}
    if changes.get("choices") == [3]:
        given["actions"] = np.full(5, 0.5)
    np.savez(tmp_path / "odd.npz", **given)
    assert words in refusal(tmp_path / "odd.npz")


def test_a_chunk_that_unfolds_to_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    arrays, path = raw([3, 2]), tmp_path / "bomb.hdf5"
    names = {"terminations": "terminals", "truncations": "timeouts"}

    def write(**packing: Any) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(names.get(name, name), data=array, **packing)

    for packing in ({"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}):
        write(**packing)
        assert len(formats.load(path)) == 2
    write(compression="gzip")
    with h5py.File(path, "r+") as file:
        dataset = file["observations"]
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(dataset.nbytes + 1000)))
    assert "a chunk of 'observations' unfolds to more than it claims" in refusal(path)
