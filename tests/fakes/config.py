"""Their hyper-parameters and entries, as an algorithm's folder has them."""

from __future__ import annotations

from dataclasses import dataclass

from legato.algorithms.entry import Entry, Preset, Task
from legato.options import Size, Whole, validate


@dataclass(frozen=True)
class Counter:
    """Counts what it is paid; a model of that is fitted now and then."""

    batch_size: Size = 4
    """rows per update"""
    refresh_every: Whole = 8
    """updates between fits of the model; 0: one fit"""
    breaks_after: Whole = 0
    """updates after which the number of a weak seed is none any more; 0: never"""

    def __post_init__(self) -> None:
        validate(self)


def preset(task: Task) -> Preset:
    """The defaults."""
    return Preset()


def _entry(name: str, learns: str) -> Entry:
    offers = {"refresh": "common", "refresh_due": "common"}
    presets = {"paper": preset, "cpu": preset}
    return Entry(name, Counter, learns, f"tests.fakes.{learns}", presets, offers=offers)  # type: ignore[arg-type]


ENTRIES = (_entry("counter", "online"), _entry("reader", "offline"))
