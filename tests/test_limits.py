"""Workers with limits tell apart what can come of a file, and one that is lost takes no other case along."""

from __future__ import annotations

import os
import sys
import time
import warnings
from typing import Any

import pytest
from tests import limits

from legato.errors import LegatoError, LegatoWarning


def worded(problem: Any, text: str) -> Any:
    """The problem with a text as it is, which its own constructor would mend."""
    problem.args = (text,)
    return problem


def behave(how: str) -> None:
    if how == "refuse":
        raise LegatoError("one line")
    if how == "two lines":
        raise worded(LegatoError(), "one line\nand another")
    if how == "escape":
        warnings.warn(worded(LegatoWarning(), "\x1b[31mred"), stacklevel=2)
    if how == "warn":
        warnings.warn("one line", LegatoWarning, stacklevel=2)
    if how == "numpy":
        warnings.warn("overflow", RuntimeWarning, stacklevel=2)
    if how == "print":
        os.write(2, b"error stack")
    if how == "fail":
        raise KeyError("x")
    if how == "huge":
        bytearray(1 << 40)
    if how == "large":
        sys.stdout.large = bytearray(os.urandom(1 << 20) * 40)  # type: ignore[attr-defined]
    if how == "die":
        os.abort()
    if how == "pipe":
        time.sleep(60)
    while how == "loop":
        pass


EXPECTED = {
    "return": "read",
    "return soon": "read",
    "return as soon": "read",
    "warn": "read",
    "refuse": "refused",
    "two lines": "garbled",
    "escape": "garbled",
    "numpy": "stray",
    "print": "stray",
    "fail": "traceback",
    "huge": "memory",
    "large": "memory",
    "die": "crash",
    "pipe": "hang",
    "loop": "hang",
    "return again": "read",
}


@pytest.mark.parametrize("each", [1, 20])
def test_every_end_has_a_name(each: int) -> None:
    cases = list(EXPECTED)
    found = limits.run(
        "tests.test_limits:behave", cases, memory=[20 << 20] * len(cases), seconds=0.3, asleep=0.5, each=each
    )
    assert [outcome.case for outcome in found] == cases
    assert {outcome.case: outcome.kind for outcome in found} == EXPECTED, limits.report(found)
    assert "hang                   2" in limits.report(found)
