"""Ctrl-C that loses nothing, and what every training loop has about it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from legato.training.progress import Progress


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the run was saved and can be resumed."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that a turn is finished and saved; a second one is immediate."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def attended(
    title: str,
    total: int,
    *,
    start: int,
    command: str,
    save: Callable[[], None],
    close: Callable[[], None],
    unit: str = "step",
    quiet: bool = False,
) -> Iterator[tuple[Progress, Callable[[int], None]]]:
    """Progress, and what a loop calls after every turn with its step: where Ctrl-C asked for it, it saves and stops.

    `command` says how to go on then. `close` is called whatever ends the loop.
    """
    with Progress(title, total, start=start, quiet=quiet, unit=unit) as progress, interruptible() as interrupted:

        def pause(step: int) -> None:
            if interrupted():
                save()
                raise Interrupted(f"stopped at {unit} {step}; continue with: {command}")

        try:
            yield progress, pause
        finally:
            close()
