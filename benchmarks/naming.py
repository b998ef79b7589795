"""What the benchmarks share: the options in the name of a policy or a column, such as `srl:horizon=16,vary=True`."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any


def assigned(pairs: Iterable[str]) -> dict[str, Any]:
    """`["a=1", "b=word"]` as options; empty strings are none."""
    found = (pair.partition("=") for pair in pairs if pair)
    return {option: literal(value) for option, _, value in found}


def literal(text: str) -> Any:
    """A number, a truth value, a tuple of such, or a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
