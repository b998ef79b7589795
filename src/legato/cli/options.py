"""Options of an environment as they are typed."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from legato.errors import LegatoError
from legato.training import settings

settings.Options = Annotated[dict[str, Any], tyro.conf.Suppress]  # set here, so that acting imports no tyro
EnvOption = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")]


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
