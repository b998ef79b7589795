"""`legato list`: what there is."""

from __future__ import annotations

from typing import Annotated, Literal

from legato.algorithms import entries
from legato.cli.parsing import Positional, call
from legato.errors import unknown
from legato.training.settings import PRESETS

KINDS = ("algorithms", "envs", "presets")


def show(kind: Annotated[Literal["algorithms", "envs", "presets"], Positional], match: str = "") -> None:
    """List algorithms, environments or presets.

    Args:
        kind: algorithms, envs (environments) or presets
        match: only names that contain this text
    """
    if kind == "algorithms":
        texts = {name: found.summary for name, found in entries().items()}
    elif kind == "presets":
        texts = dict(PRESETS)
    else:
        from legato.envs import known_ids

        texts = dict.fromkeys(known_ids(), "")
    for name, text in texts.items():
        if match.lower() in name.lower():
            print(f"{name:<12} {text}".rstrip())


def run(args: list[str]) -> None:
    if args and not args[0].startswith("-") and args[0] not in KINDS:
        raise unknown("list", args[0], KINDS)
    call(show, args, "legato list")
