"""What a person sees of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType

from legato.errors import escape_markup, plain


class Progress:
    """A bar (or lines) for work of `total` steps; a context manager.

    `quiet` shows nothing. Not on a terminal, a line is printed whenever `note` is called. Where nothing can be shown
    anything any more (a closed terminal, a broken pipe) the work goes on.
    """

    def __init__(self, title: str, total: int, *, start: int = 0, quiet: bool = False, unit: str = "step"):
        self.title, self.total, self.quiet = plain(title), total, quiet
        self.start, self.begun, self.unit = start, time.monotonic(), unit
        self.bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self.bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("[cyan]{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("[dim]{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(escape_markup(title), total=total, completed=start, rate="", note="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def step(self, done: int) -> None:
        """So many of the total are done."""
        if self.bar:
            self.bar.update(self.task, completed=done, rate=self._rate(done))

    def note(self, done: int, text: str) -> None:
        """A line worth keeping, at the bar's end or on its own."""
        if self.bar:
            self.bar.update(self.task, completed=done, note=escape_markup(text), rate=self._rate(done))
        elif not self.quiet:
            line = f"{self.title}  {done}/{self.total}  {self._rate(done)}  {plain(text)}"
            with suppress(OSError):
                print(line, file=sys.stderr, flush=True)  # noqa: T201

    def show_status(self, text: str) -> None:
        """What is being done meanwhile, at the bar's end; no line of its own."""
        if self.bar:
            self.bar.update(self.task, note=escape_markup(text))

    def rate(self, done: int) -> float:
        """Steps per second since this work began."""
        return (done - self.start) / max(time.monotonic() - self.begun, 1e-9)

    def _rate(self, done: int) -> str:
        return f"{self.rate(done):.0f} {self.unit}s/s" if self.unit == "step" else ""
