"""How much memory there is, to refuse what cannot fit before it is allocated."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import jax

from legato.errors import LegatoError


def available() -> int:
    """Bytes of memory of the device that arrays are put on: an accelerator's own, or what this process may have."""
    device: Any = jax.local_devices()[0]
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 1 << 62))
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit)
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (text := container.read_text().strip()).isdecimal():
        found.append(int(text))
    return min(found)


def refuse_beyond(needed: int, what: str, advice: str) -> None:
    """Raises `LegatoError` where so many bytes are more than there are."""
    if needed > (there := available()):
        raise LegatoError(f"{what} takes {needed / 2**30:.1f} GiB, of {there / 2**30:.1f} that there are: {advice}")
