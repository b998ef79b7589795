"""Options that several commands have: arguments of environments and searches as typed, and where a picture goes."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

from legato.algorithms import entry
from legato.cli.parsing import Repeated
from legato.errors import LegatoError

EnvOption = Annotated[tuple[str, ...], Repeated("NAME=VALUE")]


def next_free_path(picture: Path | None, usual: str) -> Path:
    """Where to draw: what the user names, or the first free of `usual`, here, and its numbered followers.

    Raises `LegatoError` for a name that is taken.
    """
    if picture is not None:
        if picture.exists():
            raise LegatoError(f"'{picture}' exists and is not overwritten; choose another --out")
        return picture
    first = Path(usual)
    names = (first, *()) if not first.exists() else (first.with_stem(f"{first.stem}-{i}") for i in count(2))
    return next(path for path in names if not path.exists())


def values(pairs: Sequence[str]) -> dict[str, Any]:
    """`("g=5", "goal=(1, 2)", "name=4x4")` as arguments: values of JSON or Python, and texts.

    Raises `LegatoError` for what is no pair, and for a name that comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise LegatoError(f"'{pair}' is no option of an environment; write --env-option NAME=VALUE")
        if name in found:
            raise LegatoError(f"--env-option {name} is given twice")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def parse_every(text: str | None) -> int | Literal["policy"] | None:
    """Primitive steps per decision as typed, or `policy`. Raises `LegatoError` for anything else."""
    if text is None or text == "policy":
        return text
    try:
        return int(text)
    except ValueError:
        raise LegatoError(f"--every takes a whole number or 'policy'; '{text}' was given") from None


def parse_search(run: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a search as they were typed, `beams=32`. Raises `LegatoError` for what is none."""
    if not pairs:
        return {}
    from legato.training.run import Run

    known, found = entry(Run(run).algorithm).play, {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise LegatoError(f"'{pair}' says nothing of a search; write such as beams=32")
        if name in found:
            raise LegatoError(f"a search is told '{name}' twice")
        kind = known.get(name, str)
        try:
            found[name] = kind(value)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise LegatoError(f"{name} is {number}; '{value}' was given") from None
    return found
