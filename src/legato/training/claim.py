"""One process at a time writes to a run.

The lock is on the folder itself, and goes with its process however that ends: nothing is left in a run that somebody
would have to remove.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from weakref import WeakValueDictionary

from legato.errors import LegatoError


class Claim:
    """A run that this process writes to, until nobody here holds the claim, or the process ends."""

    def __init__(self, path: Path, place: str):
        self.folder: int | None = None
        try:
            import fcntl
        except ImportError:  # Windows has no such locks
            return
        with contextlib.suppress(OSError):  # a folder that cannot be read is refused where it is read
            self.folder = os.open(path, os.O_RDONLY)
        if self.folder is None:
            return
        try:
            fcntl.flock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in (errno.EACCES, errno.EAGAIN):
                raise LegatoError(f"another process is at work on '{place}': wait until it has ended") from None
            # A file system without locks: nothing can be known.

    def __del__(self) -> None:
        if self.folder is not None:
            os.close(self.folder)


_held: WeakValueDictionary[Path, Claim] = WeakValueDictionary()


def claim(path: Path, place: str) -> Claim:
    """The claim on a run's folder, which this process may have already.

    Raises `LegatoError` where another process has it.
    """
    path = path.resolve()
    found = _held.get(path)
    if found is None:
        found = _held[path] = Claim(path, place)
    return found
