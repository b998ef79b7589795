"""Plain arrays out of npz files and folders of npy files."""

from __future__ import annotations

import ast
import io
import math
import os
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from legato.data.storage import RATIO, SMALL, TEXT, Claim, check_fits, length_of, line, regular, shape
from legato.errors import LegatoError

HEADER = 10_000  # bytes that describe an array
CONTENTS = 1 << 20  # bytes of an archive's table of contents
TYPE = re.compile(r"[<>|=]?[iufbUS]\d{1,9}")


# --- npz ---


def npz(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these `names` that an npz file holds, and the names of all that it holds.

    Raises `LegatoError` for what is no such file, is cut, or claims more than it can hold.
    """
    with regular(path) as opened:
        try:
            with zipfile.ZipFile(_Careful(opened)) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                length = length_of(opened)
                kept = {name: members[name] for name in names if name in members}
                for name, info in kept.items():
                    _plain(path, name, info, length)
                claims = {name: _claimed(path, name, archive, info) for name, info in kept.items()}
                check_fits(path, length, claims.values())
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
        length = length_of(file)
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
