"""The one kind of error a user sees, and of warning: a single line that names the thing, the value and what to do."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Iterable


def plain(text: object) -> str:
    """The text as one line that prints as what it is: what would steer a terminal is written out (`\\x1b`).

    For whatever comes from a file or a folder's name and is shown to people.
    """
    line = re.sub(r"\s*[\r\n]\s*", " ", str(text))
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def escape_markup(text: object) -> str:
    """Text from a file, for a table: nothing in it is markup, nothing steers the terminal."""
    from rich.markup import escape

    return escape(plain(text))


def replace_unencodable(problem: UnicodeError) -> tuple[str, int]:
    """How characters are written to a terminal or pipe that has none such: by a likeness, or by their number."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    likeness = {"·": "-", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<="}
    likeness |= {"─": "-", "━": "-", "│": "|", "█": "#"}
    part = problem.object[problem.start : problem.end]
    return "".join(likeness.get(c) or c.encode("ascii", "backslashreplace").decode() for c in part), problem.end


codecs.register_error("legato", replace_unencodable)


def quantity(n: int, thing: str) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


class LegatoError(Exception):
    """Bad input or a run that cannot go on. Its message is one line; the commands print it and exit with 2."""

    def __init__(self, message: object = ""):
        super().__init__(plain(message))


class LegatoWarning(UserWarning):
    """Something that goes on, but that its user should know of, in one line."""

    def __init__(self, message: object = ""):
        super().__init__(plain(message))


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
