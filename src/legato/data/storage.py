"""Files from unknown sources: what may be opened, and how much of it is read.

Only regular files are opened. Only arrays that are asked for are read, and each only after what it claims to be was
held against the file's length and the machine's memory: a few bytes may claim terabytes. Nothing is unpickled, and
nothing outside the file is followed to. `npy` and `hdf5` read the arrays.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from legato.errors import LegatoError

RATIO = 10  # how many times longer than their file all arrays that are read may be: what compression may have saved
SMALL = 64 << 20  # bytes of arrays that any file may hold, however well compressed
TEXT = 1000  # bytes of the longest text that is read


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


def length_of(file: BinaryIO) -> int:
    """Bytes of a file; of one with holes, at most ten times what is on the disk."""
    status = os.fstat(file.fileno())
    return (
        status.st_size if status.st_size <= SMALL else min(status.st_size, max(SMALL, RATIO * 512 * status.st_blocks))
    )


def check_fits(path: Path, length: int, claims: Iterable[Claim]) -> None:
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


# --- words for messages ---


def shape(extent: tuple[int, ...]) -> str:
    """A shape in few words, however many dimensions were claimed."""
    return str(extent) if len(extent) < 6 else f"of {len(extent)} dimensions"


def line(problem: BaseException) -> str:
    """An exception's message in one printable line."""
    text = "".join(c if c.isprintable() else " " for c in str(problem))
    return " ".join(text.split())[:300] or type(problem).__name__


def some(names: Sequence[str], most: int = 20) -> str:
    """Names that a file gives, at most so many and so long, in characters that can be printed."""
    words = ["".join(c if c.isprintable() else "?" for c in name)[:50] for name in sorted(names)]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return (", ".join(words[:most]) or "nothing") + more
