"""The commands: parse, call the library, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from legato.errors import LegatoError, LegatoWarning, plain, unknown
from legato.training.interruption import SIGNALS, Interrupted, handles_signal

COMMANDS = {
    "demo": "train SRL-8, SAC and SAC-4 on Pendulum and compare them at every decision frequency",
    "train": "train an algorithm: legato train srl --env Hopper-v5 --horizon 4 --preset paper",
    "finetune": "let policies from logs go on learning by acting: legato finetune RUN --env Hopper-v4",
    "evaluate": "measure a run at every decision frequency, with delays, and score it: legato evaluate RUN",
    "compare": "put several runs in one table and figure: legato compare RUN RUN ...",
    "metrics": "what runs measured while training, in one table and figure: legato metrics RUN RUN ...",
    "collect": "write a policy's episodes as a dataset: legato collect RUN --steps 100000 --out mine/logs-v0",
    "data": "look at logged episodes, check and convert them: legato data info D4RL/door/human-v2",
    "predict": "how far ahead a Trajectory Transformer's model predicts: legato predict RUN --dataset held-out.npz",
    "play": "play one episode of a run, or film it: legato play RUN --out swing.gif",
    "attention": "see which tokens a transformer's predictions attend to: legato attention RUN --layer 1",
    "list": "what there is: legato list algorithms|envs|presets",
}

USAGE = """usage: legato COMMAND [options]

Sequence-model reinforcement learning: policies that read a history and write a
sequence of actions.

commands:
{commands}

options:
  -h, --help     this text; 'legato COMMAND --help' explains a command
  --version      print the version
  --debug        show the traceback of an error (with any command)
"""


NARROWEST = 20  # columns in which help can be laid out: in a few, that never ends


def listing(texts: Mapping[str, str]) -> str:
    """Names and what they are, in two columns that fit the terminal."""
    column = max(map(len, texts), default=0) + 4
    width = max(shutil.get_terminal_size().columns, column + 20)
    return "\n".join(
        textwrap.fill(text, width, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
        for name, text in texts.items()
    )


def paragraphs(text: str) -> str:
    """A docstring's paragraphs, as wide as the terminal lets them be.

    Lines are indented, as tyro joins those that begin with a letter, and none is empty, as it makes two of that.
    """
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    filled = textwrap.TextWrapper(width, initial_indent="  ", subsequent_indent="  ").fill
    return "\n".join(map(filled, text.strip().split("\n\n")))


options_at_hand: dict[str, str] = {}  # how the options of the command at hand are typed, by their names


def spell(message: str) -> str:
    """A message as a command says it: its `batch_size`, `edges=uniform` and `returns=False` as they are typed.

    What neither the command at hand nor `legato data import` has stays the word that it is.
    """

    def typed(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        flag = options_at_hand.get(name) or _options_of_import().get(name)
        if flag is None:
            return found[0].strip("`")
        if value in ("True", "False"):
            return flag if value == "True" else f"--no{flag[1:]}"
        return flag if value is None else f"{flag} {value}"

    first = re.match(r"(\w+) must ", message)  # the rule of an option, which begins with its name
    if first and first[1] in options_at_hand:
        message = f"`{first[1]}`{message[first.end(1) :]}"
    return re.sub(r"`(\w+)(?:=([^`]*))?`", typed, message)


def _options_of_import() -> dict[str, str]:
    """What logs are told when they are imported, which messages of other commands advise."""
    from legato.cli import data, parsing

    return {option.name: option.typed for option in parsing.of_function(data.bring)}


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. Bad input ends with one line on stderr and exit code 2; a signal with 128 and its number.

    Without `argv` the process is a command's own, and so are its signals.
    """
    args = [*(sys.argv[1:] if argv is None else argv)]  # once its command was imported, `list` is that module here
    debug = "--debug" in args
    options_at_hand.clear()
    if argv is None:
        _open_standard_streams()
    if (columns := shutil.get_terminal_size().columns) < NARROWEST or os.environ.get("COLUMNS") == "0":
        os.environ["COLUMNS"] = str(max(columns, NARROWEST))  # what lays out help and tables reads it, 0 as none
    for name in ("stdout", "stderr"):  # of a daemon, which has none
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # an unencodable character must not stop the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="legato")
    if debug:
        args = [word for word in args if word != "--debug"]
    signals = _Signals()
    if argv is None and threading.current_thread() is threading.main_thread():
        signals.listen()
        os.environ["JAX_ENABLE_X64"] = "0"  # meant for other programs: policies are of 32 bits
    try:
        try:
            with warnings.catch_warnings():
                _shorten_warnings()
                _dispatch(args)
        finally:
            signals.ending = True
    except KeyboardInterrupt as stop:
        signals.end(str(stop), signals.heard or getattr(stop, "number", signal.SIGINT))
    except Exception as problem:
        if signals.heard:  # what was interrupted may say so in words of its own
            signals.end("", signals.heard)
        _explain(problem, debug)


def _open_standard_streams() -> None:
    """Of a daemon, which was given none: whatever is opened next would take their place, and be written to as such."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


class _Signals:
    """Ctrl-C, SIGTERM and SIGHUP of a command, where no training loop takes them in order to save.

    The first stops what is at work. From then on, and while the process ends, another ends it at once.
    """

    def __init__(self) -> None:
        self.ending = False
        self.owns = False  # is the process a command's own?
        self.heard = 0
        self.said = False

    def listen(self) -> None:
        self.owns = True
        for number in SIGNALS:
            if handles_signal(number):
                signal.signal(number, self)
        usual = sys.unraisablehook

        def hook(problem: Any) -> None:
            if isinstance(problem.exc_value, KeyboardInterrupt):  # it met what nothing can be raised from
                self.leave()
            usual(problem)

        sys.unraisablehook = hook

    def __call__(self, number: int, frame: Any) -> None:
        self.heard = self.heard or number
        if self.ending:
            self.leave()
        self.ending = True
        raise Interrupted("", number)

    def end(self, words: str, number: int) -> NoReturn:
        """Say so, where anyone is left to read it, and exit.

        The process ends without tearing down what was interrupted: libraries that were still being imported, or whose
        threads were at work, crash in that.
        """
        self.said = True
        try:
            sys.stdout.flush()
            print(plain(words or "stopped"), file=sys.stderr, flush=True)
        except OSError:  # a closed terminal would be complained about once more while the process ends
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        if self.owns:
            os._exit(128 + number)
        sys.exit(128 + number)

    def leave(self) -> NoReturn:
        """End the process now: nothing more is closed, waited for or printed."""
        words = b"" if self.said else b"stopped\n"
        shown = b"\x1b[?25h" if os.isatty(2) else b""  # the cursor, which a progress bar hides
        with suppress(OSError):
            os.write(2, shown + words)
        os._exit(128 + self.heard)


def _explain(problem: Exception, debug: bool) -> NoReturn:
    """One line for what its user can mend; anything else is raised as it is."""
    if debug or not isinstance(problem, LegatoError | OSError):
        raise problem
    words = str(problem)
    if isinstance(problem, BrokenPipeError):  # the reader has closed the pipe, as after `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.exit(0)
    if isinstance(problem, OSError):  # a full disk, a folder that may not be written to
        where = f"'{problem.filename}': " if problem.filename else ""
        words = f"{where}{problem.strerror or problem}"
    print(plain(f"error: {spell(' '.join(words.split()))}"), file=sys.stderr)
    sys.exit(2)


def _shorten_warnings() -> None:
    """The library's own warnings are one line, like its errors."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, LegatoWarning):
            print(f"warning: {spell(str(message))}", file=sys.stderr)
        else:
            usual(message, category, *rest)

    warnings.showwarning = show


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands=listing(COMMANDS)), end="")
        return
    if args[0] == "--version":
        from legato import __version__

        print(__version__)
        return
    command, *rest = args
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    importlib.import_module(f"legato.cli.{command}").run(rest)
