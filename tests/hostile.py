"""Hostile datasets, made from good ones by a seed: cut, flipped, with other headers, links, pipes and false claims.

    python -m tests.hostile --datasets 2500    # reads so many within limits and prints what came of them

Each of the variants is read by `read`, as a process with limits is asked to (`tests.limits`).
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import minari  # noqa: F401  what reading imports is imported once, before there are workers
import numpy as np
import scipy.spatial  # noqa: F401
from tests import limits

from legato.data import formats, report
from legato.data.trajectories import About, trajectories

KINDS = ("npz", "hdf5", "arrays", "minari")
ENVIRONMENT = "MINARI_DATASETS_PATH"
SET = "mine/logs-v0"
STEPS = 40

Arrays = dict[str, np.ndarray]


def read(path: str) -> None:
    """Read a dataset and say what it holds, as `legato data info` does. A folder `store` is Minari's, with one set."""
    source = path
    if Path(path).name == "store":
        os.environ[ENVIRONMENT], source = path, SET
    report.report(formats.load(source, clip_actions=True))


def good(rng: random.Random, discrete: bool) -> Arrays:
    """Eight episodes of five steps, as a file holds them."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    given: Arrays = {
        "observations": numbers.normal(size=(STEPS, 3)).astype(np.float32),
        "actions": numbers.integers(0, 3, STEPS) if discrete else numbers.uniform(-1, 1, (STEPS, 2)),
        "rewards": numbers.normal(size=STEPS),
        "terminations": np.arange(STEPS) % 10 == 9,
        "truncations": np.arange(STEPS) % 10 == 4,
        "ends": numbers.normal(size=(8, 3)),
        "offsets": np.arange(0, STEPS + 1, 5),
    }
    if discrete:
        given["choices"] = np.array(3)
    return given


# --- numbers and shapes, whatever the format ---


def _value(rng: random.Random, given: Arrays) -> None:
    """A number that cannot be learnt from, somewhere."""
    name = rng.choice(list(given))
    array = np.array(given[name], np.float64)
    if array.size:
        array.flat[rng.randrange(array.size)] = rng.choice(
            [np.nan, np.inf, -np.inf, 1e39, -1e300, 1e19, 2**63, -1, 0.5]
        )
    given[name] = array


def _type(rng: random.Random, given: Arrays) -> None:
    name = rng.choice(list(given))
    kinds = ["<f2", ">f4", "<f8", ">i8", "i1", "u1", "<u8", "?", "<c8", "<U4", "S3", "<M8[s]", "<m8[ms]", "V6"]
    kinds += ["<f16" if np.dtype("longdouble").itemsize == 16 else "<f8"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given[name] = given[name].astype(rng.choice(kinds))
        except (TypeError, ValueError):
            given[name] = np.zeros(given[name].shape, "V6")


def _shape(rng: random.Random, given: Arrays) -> None:
    name = rng.choice(list(given))
    array = np.atleast_1d(given[name])
    given[name] = rng.choice(
        [
            array[:0],
            array[..., None],
            array.reshape(-1),
            array.ravel()[0],
            array[: max(len(array) // 2, 1)],
            np.zeros((len(array), 0)),
            np.zeros((0, 3)),
            array.reshape((1,) * 20 + array.shape),
            np.concatenate([array] * 2),
        ]
    )


def _name(rng: random.Random, given: Arrays) -> None:
    """Arrays that are missing, swapped, or of other names."""
    name = rng.choice(list(given))
    how = rng.randrange(3)
    if how == 0:
        del given[name]
    elif how == 1:
        other = rng.choice(list(given))
        given[name], given[other] = given[other], given[name]
    else:
        given[rng.choice(["[/x]", "a\x1b[31mb", "é", "a\nb", "x" * 5000, "next_observations"])] = given.pop(name)


def _about(rng: random.Random, given: Arrays) -> None:
    texts = ["Pendulum-v1", "\x1b[31mred", "a\nb", "x" * 100_000, "os:system", "[/bold]"]
    values: list[Any] = [0, -1, 2**40, 1e300, np.nan, 0.5, [1, 2], [], "x", True, 3, np.zeros((2, 2)), np.full(2, 1e39)]
    for _ in range(rng.randrange(1, 4)):
        given[rng.choice(["choices", "start", "low", "high", "reference", "environment"])] = np.array(
            rng.choice(values)
        )
    given["environment"] = np.array(rng.choice([*texts, 7, [1, 2]]))


def _marks(rng: random.Random, given: Arrays) -> None:
    """Offsets and flags that contradict each other."""
    steps = len(given["observations"])
    given["offsets"] = np.array(
        rng.choice(
            [
                [0, 10, 5, steps],
                [-5, 3, steps],
                [0, steps + 7],
                [0, np.nan, steps],
                [0, 2**63 - 1, -(2**63), steps],
                [0, 1e300, steps],
                [[0, steps]],
                [],
                [0, 0, steps],
                [0.0, 2.5, steps],
            ]
        ),
        dtype=None,
    )
    if rng.random() < 0.5:
        given["terminations"] = np.full(steps, rng.choice([np.nan, 2.0, -1.0, np.inf]))


CONTENT: list[Callable[[random.Random, Arrays], None]] = [_value, _type, _shape, _name, _about, _marks]


# --- bytes, whatever the format ---


def _damage(rng: random.Random, path: Path) -> None:
    """A file cut, with some bytes changed, some inserted, or nothing but noise."""
    body = bytearray(path.read_bytes())
    how = rng.randrange(6)
    if how == 0:
        body = body[: rng.randrange(len(body) + 1)]
    elif how <= 3 and body:
        for _ in range(rng.choice([1, 2, 8, 64])):
            body[rng.randrange(len(body))] = rng.choice([0, 255, rng.randrange(256)])
    elif how == 4:
        at = rng.randrange(len(body) + 1)
        body[at:at] = rng.randbytes(rng.randrange(1, 64))
    else:
        body = bytearray(rng.choice([b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"]) + rng.randbytes(300))
    path.write_bytes(body)


def _instead(rng: random.Random, path: Path) -> None:
    """Something that is no file where the file was."""
    path.unlink()
    how = rng.randrange(5)
    if how <= 1:
        os.mkfifo(path)
    elif how == 2:
        path.symlink_to(rng.choice(["/dev/zero", "/dev/stdin", "/proc/self/mem", "/nowhere", path.name]))
    elif how == 3:
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 42)  # nothing but a hole


# --- npz ---


def npy(array: np.ndarray, **header: Any) -> bytes:
    """The bytes of an npy file that says of itself what it is told to."""
    said = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape, **header}
    text = repr(said).encode("latin1", "replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text + array.tobytes()


def _header(rng: random.Random, array: np.ndarray) -> bytes:
    huge = rng.choice([10**9, 10**18, 2**63, 10**30, -1])
    claims: list[dict[str, Any]] = [
        {"shape": (huge,)},
        {"shape": (huge, 0)},
        {"shape": (huge, 3)},
        {"shape": (2,) * 200},
        {"shape": "x"},
        {"shape": (1.5,)},
        {"descr": "|O"},
        {"descr": [("a", "<f4"), ("b", "<i8", (10**6,))]},
        {"descr": "<f3"},
        {"descr": "|V999999999"},
        {"descr": "<U999999999"},
        {"fortran_order": "yes"},
        {"extra": 1},
    ]
    body = npy(array, **rng.choice(claims))
    how = rng.randrange(6)
    if how == 0:
        return body[:6] + bytes([rng.choice([0, 2, 3, 9])]) + body[7:]
    if how == 1:
        return b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + body[10:]
    if how == 2:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000
    return body


def _npz(rng: random.Random, path: Path, given: Arrays) -> None:
    how = rng.randrange(8)
    changed = rng.choice(list(given))
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method if how == 1 else zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, array in given.items():
            body = npy(array)
            if name == changed and how == 0:
                body = _header(rng, array)
            if name == changed and how == 2:  # zeros without end
                body = npy(array[:0], shape=(10 << 20, *array.shape[1:]), descr="<f8") + bytes(240 * 2**20 // 3)
            archive.writestr(f"{name}.npy", body)
            if how == 3:
                archive.writestr(f"{name}.npy", npy(array))
        if how == 4:
            archive.writestr("unread.npy", bytes(80 << 20))
        if how == 5:
            for i in range(3000):
                archive.writestr(f"more/{i}/{'x' * 400}.npy", b"")
    body = bytearray(path.read_bytes())
    if how == 6:  # fields of the table of contents: flags, method, sizes, place
        begin = body.find(b"PK\x01\x02")
        field, size = rng.choice([(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)])
        value = rng.choice([1, 8, 9, 12, 14, 99, 2**16 - 1, 2**31, 2**32 - 1]) % (1 << 8 * size)
        body[begin + field : begin + field + size] = value.to_bytes(size, "little")
    if how == 7:  # of its end
        begin = body.rfind(b"PK\x05\x06")
        field, size = rng.choice([(8, 2), (10, 2), (12, 4), (16, 4), (20, 2)])
        body[begin + field : begin + field + size] = rng.randrange(1 << 8 * size).to_bytes(size, "little")
    path.write_bytes(body)


# --- HDF5 ---


def _hdf5(rng: random.Random, path: Path, given: Arrays) -> None:
    """Datasets that lead elsewhere, claim much, or are of kinds that hold no numbers."""
    beside = path.with_name("beside.bin")
    beside.write_bytes(bytes(10_000))
    formats._write_hdf5(path, given)
    names = {"terminations": "terminals", "truncations": "timeouts"}
    name = rng.choice(list(given))
    name = names.get(name, name)
    with h5py.File(path, "a") as file:
        shape, array = file[name].shape, file[name][()]
        del file[name]
        how = rng.randrange(14)
        if how == 0:
            file[name] = h5py.SoftLink("/loop" if rng.random() < 0.5 else f"/{name}")
        elif how == 1:
            file[name] = h5py.ExternalLink("beside.bin", "/x")
        elif how == 2:
            file.create_dataset(name, (100,), "<f8", external=[(str(beside), 0, 800)])
        elif how == 3:
            layout = h5py.VirtualLayout(shape or (1,), "<f8")
            layout[...] = h5py.VirtualSource(str(beside), "x", shape or (1,))
            file.create_virtual_dataset(name, layout)
        elif how == 4:
            file[name] = h5py.Empty("f4")
        elif how == 5:
            rows = rng.choice([10**9, 10**15, 2**60])
            file.create_dataset(name, (rows, *shape[1:]), "<f4", chunks=(1000, *shape[1:]), compression="gzip")
        elif how == 6:
            file.create_dataset(name, (10**12,), "<f4")  # nothing is written of it
        elif how == 7:
            file.create_dataset(name, (10,), "<f4", chunks=(2**28,), maxshape=(None,), compression="gzip")
        elif how == 8:
            file.create_dataset(name, (5,), h5py.special_dtype(vlen=np.float32))
        elif how == 9:
            file.create_dataset(name, data=np.zeros(shape, [("a", "<f4"), ("b", "S3")]))
        elif how == 10:
            file.create_dataset(name, (5,), h5py.ref_dtype)
        elif how == 11:
            file.create_group(name).create_dataset("data", data=array)
        elif how == 12:
            file.create_dataset(name, data=[b"\xff\xfe"] * 3, dtype=h5py.string_dtype())
        else:
            file.create_dataset(name, data=array)
            h5py.h5g.create(file.id, b"\xff\xfe\x80")  # a name that is no text


# --- Minari ---


def _metadata(rng: random.Random, path: Path) -> None:
    """Metadata of other types, and spaces of other kinds."""
    said = json.loads(path.read_text())
    odd: list[Any] = [None, -1, 2**70, 1e300, [], {}, "x", True, "\x1b[31m", float("nan"), "[" * 5000]
    field = rng.choice([*said, "env_spec", "ref_min_score", "minari_version", "total_episodes"])
    how = rng.randrange(6)
    if how <= 1:
        said[field] = rng.choice(odd)
    elif how == 2:
        said.pop(field, None)
    elif how <= 4:
        which = rng.choice(["observation_space", "action_space"])
        space = json.loads(said[which])
        inside = rng.choice(["type", "shape", "low", "high", "n", "start", "dtype"])
        space[inside] = rng.choice([*odd, "Discrete", "Text", [10**9], [10**18, 3], 10**15, 0.5, [1e39] * 3])
        said[which] = json.dumps(space)
    else:
        said["env_spec"] = json.dumps(
            {"id": rng.choice(odd), "entry_point": "os:system", "kwargs": {"command": "false"}}
        )
    path.write_text(
        json.dumps(said) if rng.random() < 0.9 else rng.choice(["", "[" * 100_000, "[]", "7", "\ud800x"[1:]])
    )


def _episodes(rng: random.Random, path: Path) -> None:
    with h5py.File(path, "a") as file:
        episode = f"episode_{rng.randrange(8)}"
        name = rng.choice(["observations", "actions", "rewards", "terminations", "truncations"])
        how = rng.randrange(7)
        array = file[episode][name][()]
        if how == 0:
            del file[episode]
            return
        del file[episode][name]
        if how == 1:
            file[episode].create_dataset(
                name, (10 ** rng.choice([9, 15]), 3), "<f4", chunks=(1000, 3), compression="gzip"
            )
        elif how == 2:
            file[episode][name] = array[: len(array) // 2]
        elif how == 3:
            file[episode][name] = h5py.ExternalLink("beside.bin", "/x")
        elif how == 4:
            file[episode][name] = h5py.Empty("f4")
        elif how == 5:
            file[episode].create_dataset(name, data=np.full(array.shape, np.nan))


# --- one of all ---


def make(seed: int, folder: Path) -> Path:
    """The hostile dataset of this seed, in a new folder. Where Minari would have it, the folder is called `store`."""
    rng = random.Random(seed)
    kind, discrete = KINDS[seed % len(KINDS)], rng.random() < 0.3
    given, how = good(rng, discrete), rng.random()
    folder.mkdir()
    path = folder / f"logs.{kind}"
    if kind == "minari":
        path = folder / "store"
        _store(rng, path, discrete, how)
        return path
    write = {"npz": formats._write_npz, "hdf5": formats._write_hdf5, "arrays": formats._write_folder}[kind]
    if how < 0.45:
        for _ in range(rng.choice([1, 1, 2])):
            with suppress(KeyError, TypeError, ValueError, IndexError):  # a change before left it nothing to do
                rng.choice(CONTENT)(rng, given)
        given = {
            name: array for name, array in given.items() if kind != "arrays" or (len(name) < 200 and "/" not in name)
        }
        try:
            write(path, given)
        except (TypeError, ValueError, OSError, KeyError):  # what the format has no place for
            (shutil.rmtree if path.is_dir() else os.unlink)(path)
            write(path, good(rng, discrete))
        return path
    if how < 0.6 and kind == "npz":
        _npz(rng, path, given)
        return path
    if how < 0.7 and kind == "hdf5":
        _hdf5(rng, path, given)
        return path
    write(path, given)
    file = path
    if kind == "arrays":
        name = rng.choice(list(given))
        file = path / f"{name}.npy"
        if how < 0.7:
            file.write_bytes(_header(rng, given[name]))
            return path
    (_damage if how < 0.92 else _instead)(rng, file)
    return path


@cache
def _good_store(discrete: bool) -> Path:
    """A store of Minari's with one good set, which others are copied from."""
    path = Path(tempfile.mkdtemp(prefix="legato-store-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    about = About("logs", "Pendulum-v1", (0.0, 1.0), choices=3 if discrete else None)
    given = good(random.Random(0), discrete)
    given.pop("choices", None)
    if "ends" in given:
        given["final_observations"] = given.pop("ends")
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(path)
    try:
        formats.save(trajectories(**given, about=about), SET)
    finally:
        os.environ.pop(ENVIRONMENT)
        if before is not None:
            os.environ[ENVIRONMENT] = before
    return path


def _store(rng: random.Random, path: Path, discrete: bool, how: float) -> None:
    shutil.copytree(_good_store(discrete), path)
    data = path / SET / "data"
    if how < 0.35:
        _metadata(rng, data / "metadata.json")
    elif how < 0.6:
        _episodes(rng, data / "main_data.hdf5")
    else:
        file = data / rng.choice(["metadata.json", "main_data.hdf5", "main_data.hdf5"])
        (_damage if how < 0.9 else _instead)(rng, file)


def read_all(seeds: range, folder: Path) -> list[limits.Outcome]:
    """What comes of the datasets of these seeds."""
    paths = [str(make(seed, folder / str(seed))) for seed in seeds]
    return limits.run("tests.hostile:read", paths)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--datasets", type=int, default=250, help="how many are made")
    options.add_argument("--first", type=int, default=0, help="the first one's seed")
    options.add_argument("--keep", help="a new folder that they are made in, and left in")
    args = options.parse_args()
    seeds = range(args.first, args.first + args.datasets)
    if args.keep:
        Path(args.keep).mkdir()
        found = read_all(seeds, Path(args.keep))
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = read_all(seeds, Path(folder))
    sys.stdout.write(limits.report(found) + "\n")
    sys.exit(any(not outcome.good for outcome in found))


if __name__ == "__main__":
    main()
