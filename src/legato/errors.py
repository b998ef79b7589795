"""The one kind of error a user sees, and of warning: a single line that names the thing, the value and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LegatoError(Exception):
    """Bad input or a run that cannot go on. Its message is one line; the commands print it and exit with 2."""


class LegatoWarning(UserWarning):
    """Something that goes on, but that its user should know of."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> LegatoError:
    """The error for a misspelt name: `unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?`.

    Falls back to `hint` (how to list what exists) when nothing known is near.
    """
    known = list(known)
    folded = {option.lower(): option for option in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        advice = f"did you mean '{folded[near[0]]}'?"
    else:
        advice = hint or f"known: {', '.join(sorted(known))}"
    return LegatoError(f"unknown {kind} '{name}'; {advice}")
