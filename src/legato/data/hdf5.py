"""Plain arrays out of HDF5 files."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from legato.data.storage import RATIO, SMALL, TEXT, Claim, check_fits, length_of, line, regular, shape
from legato.errors import LegatoError

NAMES = 1_000_000  # of a group at most
CHECKSUM = 4  # bytes that HDF5 may add to a chunk
DEFLATE, LZF = 1032, 100  # times that a compressed chunk may unfold at most
FILTERS = {1, 2, 3, 32000}  # of HDF5: deflate, shuffle, fletcher32, lzf
WHAT = "iufb"  # kinds of numbers that are read, and flags


def read_arrays(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these `names` (`group/name` below the root) that an HDF5 file holds, and the names at its root.

    Links to other places and files are not followed: what they lead to counts as not there.
    """
    import h5py

    with regular(path) as opened:
        length = length_of(opened)
    try:
        with h5py.File(path, "r") as file:
            held = [str(name) for name in file]
            found = {name: _dataset(file, name) for name in names}
            found = {name: value for name, value in found.items() if value is not None}
            claims = {name: _described(path, name, value) for name, value in found.items()}
            check_fits(
                path, length, [*claims.values(), *(_chunk(claims[name], value) for name, value in found.items())]
            )
            return {name: _read(value, claims[name]) for name, value in found.items()}, held
    except LegatoError:
        raise
    except Exception as problem:  # whatever a cut or hostile file makes of the library
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {line(problem)}") from None


def names_in(path: Path, group: str = "") -> list[str]:
    """The names in a group of an HDF5 file, at most `NAMES` of them; none where there is no such group.

    Raises `LegatoError` for what is no such file.
    """
    import h5py

    regular(path).close()
    try:
        with h5py.File(path, "r") as file:
            found = _inside(file, group)
            return [str(name) for name in itertools.islice(found, NAMES)] if isinstance(found, h5py.Group) else []
    except Exception as problem:  # whatever a cut or hostile file makes of the library
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {line(problem)}") from None


def _inside(group: Any, name: str) -> Any:
    """What lies at `part/part/...` below a group, if all of it is in this very file."""
    for part in filter(None, name.split("/")):
        if group is None or not _here(group, part):
            return None
        group = group[part]
    return group


def _dataset(file: Any, name: str) -> Any:
    """The dataset of this name, if one is in this very file."""
    import h5py

    value = _inside(file, name)
    return value if isinstance(value, h5py.Dataset) else None


def _here(group: Any, name: str) -> bool:
    """Whether something of this name lies in the group, and not elsewhere."""
    import h5py

    there = isinstance(group, h5py.Group) and name in group
    return there and isinstance(group.get(name, getlink=True), h5py.HardLink)


def _described(path: Path, name: str, value: Any) -> Claim:
    import h5py

    if value.is_virtual or value.external:
        raise LegatoError(f"'{path}': the numbers of '{name}' lie in other files; copy them into this one")
    if value.shape is None:
        raise LegatoError(f"'{path}': '{name}' holds nothing; leave it out")
    if h5py.check_string_dtype(value.dtype) is not None:
        if math.prod(value.shape) != 1 or value.dtype.itemsize > TEXT:
            raise LegatoError(f"'{path}': '{name}' holds text, not numbers (shape {shape(value.shape)})")
    elif value.dtype.kind not in WHAT:
        raise LegatoError(f"'{path}': '{name}' holds {value.dtype}, not plain numbers")
    return Claim(name, value.dtype, value.shape)


def _chunk(claim: Claim, value: Any) -> Claim:
    """What is read at once of a dataset stored in chunks."""
    return Claim(claim.name, claim.dtype, value.chunks or (0,))


def _read(value: Any, claim: Claim) -> np.ndarray:
    import h5py

    _check_chunks(value, claim)
    if h5py.check_string_dtype(value.dtype) is None:
        return np.asarray(value[()])
    return np.asarray(value.asstr()[()])


def _check_chunks(value: Any, claim: Claim) -> None:
    """Refuse compressed chunks that unfold to more than a chunk: HDF5 would make room for whatever comes."""
    import h5py

    plan = value.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not filters:
        return
    if unknown := set(filters) - FILTERS:
        raise ValueError(
            f"'{claim.name}' is packed by filter {min(unknown)}; write it with gzip or without compression"
        )
    if filters.count(h5py.h5z.FILTER_DEFLATE) + filters.count(h5py.h5z.FILTER_LZF) > 1:
        raise ValueError(f"'{claim.name}' is compressed more than once")
    most = math.prod(value.chunks) * value.dtype.itemsize + CHECKSUM
    for i in range(value.id.get_num_chunks()):
        info = value.id.get_chunk_info(i)
        # What was left unfiltered, and what cannot unfold to much, is not unfolded twice.
        if h5py.h5z.FILTER_DEFLATE in filters and info.size * DEFLATE > most:
            _, packed = value.id.read_direct_chunk(info.chunk_offset)
            if not info.filter_mask and len(zlib.decompressobj().decompress(packed, most + 1)) > most:
                raise ValueError(f"a chunk of '{claim.name}' unfolds to more than it claims")
        elif h5py.h5z.FILTER_LZF in filters and info.size * LZF > max(SMALL, RATIO * most):
            raise ValueError(f"a chunk of '{claim.name}' may unfold to more than it claims; write it with gzip")


def episodes(path: Path, count: int, names: Collection[str]) -> list[dict[str, np.ndarray]]:
    """The arrays of these `names` of the groups `episode_0` to `episode_{count - 1}` of an HDF5 file, as in Minari.

    Raises `LegatoError` as `hdf5` does, and for what an episode lacks.
    """
    import h5py

    with regular(path) as opened:
        length = length_of(opened)
    try:
        with h5py.File(path, "r") as file:
            if not 0 <= count <= len(file):
                raise LegatoError(f"'{path}' holds {len(file)} episodes, and {count} were said to be there")
            found, read = [], 0
            for i in range(count):
                group = file.get(f"episode_{i}") if _here(file, f"episode_{i}") else None
                values = {name: _dataset(group, name) for name in names} if isinstance(group, h5py.Group) else {}
                if missing := [name for name in names if values.get(name) is None]:
                    raise LegatoError(f"'{path}': episode_{i} has no {' and no '.join(missing)}")
                claims = {name: _described(path, name, value) for name, value in values.items()}
                whole = Claim("episodes", np.dtype(np.uint8), (read,))
                check_fits(path, length, [whole, *claims.values(), *(_chunk(claims[n], v) for n, v in values.items())])
                read += sum(claim.bytes for claim in claims.values())
                found.append({name: _read(value, claims[name]) for name, value in values.items()})
            return found
    except LegatoError:
        raise
    except Exception as problem:  # whatever a cut or hostile file makes of the library
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {line(problem)}") from None
