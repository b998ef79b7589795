"""Plain arrays out of files that nobody vouches for: npz, HDF5 and folders of npy.

Only regular files are opened. Only arrays that are asked for are read, and each only after what it claims to be was
held against the file's length and the machine's memory: a few bytes may claim terabytes. Nothing is unpickled, and
nothing outside the file is followed to.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from legato.errors import LegatoError

RATIO = 10  # how many times longer than their file all arrays that are read may be: what compression may have saved
SMALL = 64 << 20  # bytes of arrays that any file may hold, however well compressed
TEXT = 1000  # bytes of the longest text that is read
HEADER = 10_000  # bytes that describe an array
CONTENTS = 1 << 20  # bytes of an archive's table of contents
NAMES = 1_000_000  # of a group at most
CHECKSUM = 4  # bytes that HDF5 may add to a chunk
DEFLATE, LZF = 1032, 100  # times that a compressed chunk may unfold at most
FILTERS = {1, 2, 3, 32000}  # of HDF5: deflate, shuffle, fletcher32, lzf
WHAT = "iufb"  # kinds of numbers that are read, and flags
TYPE = re.compile(r"[<>|=]?[iufbUS]\d{1,9}")


@dataclass(frozen=True)
class Claim:
    """What a file says of an array, before anything of it is read."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes that dealing with it may take: a dimension of none hides the others."""
        return max(self.dtype.itemsize, 1) * math.prod(max(n, 1) for n in self.shape)


# --- npz ---


def npz(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these `names` that an npz file holds, and the names of all that it holds.

    Raises `LegatoError` for what is no such file, is cut, or claims more than it can hold.
    """
    with regular(path) as opened:
        try:
            with zipfile.ZipFile(_Careful(opened)) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                length = _length(opened)
                kept = {name: members[name] for name in names if name in members}
                for name, info in kept.items():
                    _plain(path, name, info, length)
                claims = {name: _claimed(path, name, archive, info) for name, info in kept.items()}
                _fits(path, length, claims.values())
                return {name: _stored(archive, kept[name], claim) for name, claim in claims.items()}, list(members)
        except LegatoError:
            raise
        except Exception as problem:  # whatever a cut or hostile archive makes of its reader
            raise LegatoError(
                f"'{path}' cannot be read, it is cut or no npz file of plain arrays: {line(problem)}"
            ) from None


class _Careful(io.RawIOBase):
    """A file of which no more is read at once than arrays need: a table of contents may claim any length."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def read(self, size: int = -1) -> bytes:
        found = b"" if size > CONTENTS else self.file.read(CONTENTS + 1 if size < 0 else size)
        if size > CONTENTS or len(found) > CONTENTS:
            raise ValueError("its table of contents is longer than that of arrays")
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _plain(path: Path, name: str, info: zipfile.ZipInfo, length: int) -> None:
    """Refuse a member that is encrypted, compressed in some other way than NumPy's, or longer than the file."""
    if info.flag_bits & 1:
        raise LegatoError(f"'{path}': '{name}' is encrypted; write it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise LegatoError(f"'{path}': '{name}' is compressed by method {info.compress_type}; write it by numpy.savez")
    if info.header_offset + info.compress_size > length:
        raise LegatoError(f"'{path}' cannot be read, it is cut: '{name}' claims {info.compress_size} of {length} bytes")


def _claimed(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Claim:
    with archive.open(info) as member:
        claim, _, begin = _header(path, name, member)
    if claim.bytes > info.file_size - begin:
        raise LegatoError(
            f"'{path}' cannot be read: '{name}' claims shape {shape(claim.shape)} of {claim.dtype}, but "
            f"{max(info.file_size - begin, 0)} bytes are there"
        )
    return claim


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, claim: Claim) -> np.ndarray:
    with archive.open(info) as opened:
        member: Any = opened
        _, fortran, _ = _header(Path(), claim.name, member)
        found = np.empty(claim.shape[::-1] if fortran else claim.shape, claim.dtype)
        into: Any = memoryview(cast(Any, found.reshape(-1).view(np.uint8))) if found.size else b""
        at = 0
        while at < len(into):
            got = member.readinto(into[at : at + (1 << 18)])
            if not got:
                raise EOFError(f"'{claim.name}' ends early")
            at += got
        member.read(1)  # at its end the checksum is compared
    return found.transpose() if fortran else found


def _header(path: Path, name: str, file: Any) -> tuple[Claim, bool, int]:
    """What an npy file says of itself at its beginning, whether its columns lie together, and where its numbers begin.

    NumPy's own reader would first read as much as the file says that this is long.
    """
    try:
        magic = file.read(8)
        wide = {1: 2, 2: 4}.get(magic[6]) if magic[:6] == b"\x93NUMPY" and len(magic) == 8 else None
        if wide is None:
            raise ValueError("it does not begin as an array does")
        size = int.from_bytes(file.read(wide), "little")
        if size > HEADER:
            raise ValueError(f"its description is {size} bytes long")
        said = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", file.read(size).decode("latin1").strip()))
        if not isinstance(said, dict) or said.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError("its description is none of an array")
        kind, extent, fortran = said["descr"], said["shape"], said["fortran_order"]
        if not isinstance(extent, tuple) or not all(type(n) is int and 0 <= n < 1 << 60 for n in extent):
            raise ValueError("its shape is none")
        if not isinstance(kind, str) or not TYPE.fullmatch(kind):
            raise ValueError("it holds objects or records, not plain numbers")
        dtype = np.dtype(kind)
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as problem:
        raise LegatoError(f"'{path}' cannot be read: '{name}' is cut or no plain array: {line(problem)}") from None
    if dtype.kind in "US" and (math.prod(extent) > 1 or dtype.itemsize > 4 * TEXT):
        raise LegatoError(f"'{path}': '{name}' holds text, not numbers ({dtype}, shape {shape(extent)})")
    return Claim(name, dtype, extent), bool(fortran), 8 + wide + size


# --- folders of npy ---


def folder(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these `names` in a folder of npy files, mapped, and the names of all of them."""
    if not path.is_dir():
        raise LegatoError(f"there is no folder '{path}'")
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    return {name: _mapped(files[name], name) for name in names if name in files}, list(files)


def _mapped(path: Path, name: str) -> np.ndarray:
    with regular(path) as file:
        length = _length(file)
        try:
            claim, fortran, begin = _header(path, name, file)
        except LegatoError as problem:
            raise LegatoError(f"'{path}' cannot be read, it is cut or no plain array: {line(problem)}") from None
        if claim.bytes > os.fstat(file.fileno()).st_size - begin or claim.size > max(RATIO * length, SMALL):
            raise LegatoError(
                f"'{path}' cannot be read, it is cut or no plain array: it claims shape {shape(claim.shape)} of "
                f"{claim.dtype} and is {length} bytes long"
            )
        if not claim.shape or not claim.bytes:
            return np.frombuffer(file.read(claim.bytes), claim.dtype).reshape(claim.shape)
        order = "F" if fortran else "C"
        return np.memmap(file, claim.dtype, mode="r", offset=begin, shape=claim.shape, order=order)


# --- HDF5 ---


def hdf5(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these `names` (`group/name` below the root) that an HDF5 file holds, and the names at its root.

    Links to other places and files are not followed: what they lead to counts as not there.
    """
    import h5py

    with regular(path) as opened:
        length = _length(opened)
    try:
        with h5py.File(path, "r") as file:
            held = [str(name) for name in file]
            found = {name: _dataset(file, name) for name in names}
            found = {name: value for name, value in found.items() if value is not None}
            claims = {name: _described(path, name, value) for name, value in found.items()}
            _fits(path, length, [*claims.values(), *(_chunk(claims[name], value) for name, value in found.items())])
            return {name: _read(value, claims[name]) for name, value in found.items()}, held
    except LegatoError:
        raise
    except Exception as problem:  # whatever a cut or hostile file makes of the library
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {line(problem)}") from None


def hdf5_names(path: Path, group: str = "") -> list[str]:
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
        length = _length(opened)
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
                _fits(path, length, [whole, *claims.values(), *(_chunk(claims[n], v) for n, v in values.items())])
                read += sum(claim.bytes for claim in claims.values())
                found.append({name: _read(value, claims[name]) for name, value in values.items()})
            return found
    except LegatoError:
        raise
    except Exception as problem:  # whatever a cut or hostile file makes of the library
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {line(problem)}") from None


# --- JSON ---


def json_object(path: Path, most: int) -> dict[str, Any]:
    """The object in a JSON file of at most so many bytes. Raises `LegatoError` for anything else."""
    with regular(path) as file:
        try:
            text = file.read(most + 1)
        except OSError as problem:
            raise LegatoError(f"'{path}' cannot be read: {line(problem)}") from None
    if len(text) > most:
        raise LegatoError(f"'{path}' is longer than {most} bytes")
    return object_of(text, str(path))


def object_of(text: Any, what: str) -> dict[str, Any]:
    """The object that a text says in JSON. Raises `LegatoError`, naming it by `what`, for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as problem:
        raise LegatoError(f"'{what}' is no JSON: {line(problem)}") from None
    if not isinstance(found, dict):
        raise LegatoError(f"'{what}' is no JSON object")
    return found


# --- what all share ---


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading. Anything else that has a path (a pipe, a device) might never end.

    Raises `OSError` as `open` does, and `LegatoError` for what is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise LegatoError(f"'{path}' is no regular file: put the file itself there")
    return os.fdopen(handle, "rb")


def regular(path: Path) -> BinaryIO:
    """The same, with `LegatoError` for whatever is wrong."""
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise LegatoError(f"there is no file '{path}'") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or line(problem)
        raise LegatoError(f"'{path}' cannot be read: {reason}") from None


def _length(file: BinaryIO) -> int:
    """Bytes of a file; of one with holes, at most ten times what is on the disk."""
    status = os.fstat(file.fileno())
    return (
        status.st_size if status.st_size <= SMALL else min(status.st_size, max(SMALL, RATIO * 512 * status.st_blocks))
    )


def _fits(path: Path, length: int, claims: Iterable[Claim]) -> None:
    """Refuse arrays that the file cannot hold, or the machine."""
    claims = list(claims)
    total = sum(claim.size for claim in claims)
    if total > max(SMALL, RATIO * length):
        most = max(claims, key=lambda claim: claim.size)
        raise LegatoError(
            f"'{path}' is {length} bytes long and claims {total} bytes of arrays, '{most.name}' with shape "
            f"{shape(most.shape)}: more than {RATIO} times its length is not read; write it without compression"
        )
    room = available()
    if total > room:
        raise LegatoError(
            f"'{path}' holds {total >> 20} MiB of arrays, and {room >> 20} MiB of memory are available: an .arrays "
            "folder is mapped instead of read"
        )


def refuse_more(path: Path, size: int) -> None:
    """Raises `LegatoError` where reading this file takes more bytes than can be had."""
    if size > (room := available()):
        raise LegatoError(f"reading '{path}' takes {size >> 20} MiB, and {room >> 20} MiB of memory are available")


def available() -> int:
    """Bytes of memory that can still be had, as far as the system says."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(words.split()[1]) << 10 for words in file if words.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 1 << 62


def shape(extent: tuple[int, ...]) -> str:
    """A shape in few words, however many dimensions were claimed."""
    return str(extent) if len(extent) < 6 else f"of {len(extent)} dimensions"


def line(problem: BaseException) -> str:
    """An exception's message in one printable line."""
    text = "".join(c if c.isprintable() else " " for c in str(problem))
    return " ".join(text.split())[:300] or type(problem).__name__
