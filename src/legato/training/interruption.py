"""Signals that lose nothing, and what every training loop has about it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from legato.training.progress import Progress

# Ctrl-C, a scheduler that wants its machine back, a closed terminal. Not every system has the last.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal, whose `number` this is, asked to stop: the run was saved and can be resumed."""

    def __init__(self, words: str = "", number: int = signal.SIGINT):
        super().__init__(words)
        self.number = number


def handles_signal(number: int) -> bool:
    """Would this signal do anything? Not where it is ignored (nohup), or where what is not Python takes it."""
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


@contextmanager
def interruptible() -> Iterator[Callable[[], int | None]]:
    """Turns a signal into its number, so that a turn is finished and saved; a second Ctrl-C is immediate.

    More of the others change nothing: who closes a terminal or ends a job often sends several. A number that nobody
    asked for by the end is sent again, to whom it would have reached without this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    first: int | None = None
    taken = False
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS if handles_signal(number)}

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if first is None:
            first = number
        elif number == signal.SIGINT:
            if callable(before[number]):
                before[number](number, frame)
            raise KeyboardInterrupt

    def asked() -> int | None:
        nonlocal taken
        taken = first is not None
        return first

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    except BaseException:
        taken = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if first is not None and not taken:
            signal.raise_signal(first)


@contextmanager
def supervise(
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
    """Progress, and what a loop calls after every turn with its step: where a signal asked for it, it saves and stops.

    `command` says how to go on then. `close` is called whatever ends the loop.
    """
    with Progress(title, total, start=start, quiet=quiet, unit=unit) as progress, interruptible() as interrupted:

        def pause(step: int) -> None:
            if (number := interrupted()) is not None:
                save()
                raise Interrupted(f"stopped at {unit} {step}; continue with: {command}", number)

        if start >= total:
            progress.note(total, "was finished before")
        try:
            yield progress, pause
        finally:
            close()
