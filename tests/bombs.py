"""Pickles that would do something if they were read, told from harmless ones without reading them."""

from __future__ import annotations

import pickletools


def calls(pickled: bytes) -> bool:
    """Whether reading it would call a function. It is taken apart, not unpickled."""
    return any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(pickled))
