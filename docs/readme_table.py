"""The README's table of algorithms, from their entries: `make readme` writes it there, and a test compares."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from legato.algorithms import entries
from legato.algorithms.entry import Entry
from legato.errors import LegatoError

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- algorithms: written by `make readme` -->\n", "<!-- end of algorithms -->\n"
TOLD = {"nothing": "nothing", "return": "a return", "goal": "a goal"}


def table() -> str:
    """A row for every algorithm, and for every way to fine-tune below the one that it goes on with."""
    rows = ["| name | what it is | learns from | actions | its policies are conditioned on |", "|---|---|---|---|---|"]
    for name, found in entries().items():
        source = {"online": "acting", "offline": "logs"}[found.learns]
        actions = "numbers or choices" if found.discrete else "numbers"
        page = f"[`{name}`](docs/algorithms/{name}.md)"
        rows.append(f"| {page} | {found.summary} | {source} | {actions} | {' or '.join(told(found))} |")
        for method, tuning in entries("finetuning").items():
            if name in tuning.continues:
                rows.append(f"| `{method}` | {tuning.summary} | acting, after `{name}` | as before | as before |")
    return "\n".join(rows) + "\n"


def told(found: Entry) -> list[str]:
    """What policies read as an episode begins: by default first, and then what other choices make of it."""
    commands = [found.command(config) for config in variants(found.config)]
    return [TOLD[command] for command in dict.fromkeys(commands)]


def variants(kind: type[Any]) -> Iterator[Any]:
    """The default hyper-parameters, and those with one or two choices made otherwise, as far as these are allowed."""
    made: list[tuple[str, Any]] = []
    for name, of_field in typing.get_type_hints(kind).items():
        if of_field is bool:
            made += [(name, True), (name, False)]
        elif typing.get_origin(of_field) is Literal:
            made += [(name, choice) for choice in typing.get_args(of_field)]
    for changes in [(), *((one,) for one in made), *itertools.combinations(made, 2)]:
        try:
            yield kind(**dict(changes))
        except LegatoError:
            continue


def parts(text: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands after it."""
    before, _, rest = text.partition(BEGIN)
    found, _, after = rest.partition(END)
    return before + BEGIN, found, END + after


if __name__ == "__main__":
    before, _, after = parts(README.read_text())
    README.write_text(before + table() + after)
