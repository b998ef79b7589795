"""Text from files and folders, as people are shown it: one line, which steers no terminal and means no markup."""

from __future__ import annotations

import io
import warnings

import pytest
from rich.console import Console
from rich.table import Table

from legato.errors import LegatoError, LegatoWarning, escape_markup, plain
from legato.training.progress import Progress

HOSTILE = "[/x] [red]a\x1b[31m\x07\x9b2J\u202e\udcff\0 é中$x_{$"
TOLD = "[/x] [red]a\\x1b[31m\\x07\\x9b2J\\u202e\\udcff\\x00 é中$x_{$"


def test_what_would_steer_a_terminal_is_written_out() -> None:
    assert plain(HOSTILE) == TOLD
    assert plain("SRL-8, 10%BC · 中文") == "SRL-8, 10%BC · 中文"
    assert plain("one\n  two\r\nthree") == "one two three"


def test_errors_and_warnings_are_one_printable_line() -> None:
    assert str(LegatoError(f"'{HOSTILE}'\nis no run")) == f"'{TOLD}' is no run"
    with pytest.warns(LegatoWarning) as heard:
        warnings.warn(HOSTILE, LegatoWarning, stacklevel=1)
    assert str(heard[0].message) == TOLD


def test_no_text_is_markup_in_a_table() -> None:
    out = io.StringIO()
    table = Table(title=escape_markup(HOSTILE))
    table.add_column("policy")
    table.add_row(escape_markup(HOSTILE))
    Console(file=out, width=200, force_terminal=True, color_system=None).print(table)
    assert out.getvalue().count(TOLD) == 2
    assert HOSTILE[14:] not in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_any_name(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("COLUMNS", "400")
    with Progress(HOSTILE, 2) as progress:
        progress.note(1, HOSTILE)
    assert TOLD.split(" ")[1] in out.getvalue()  # with its brackets
    assert "\x07" not in out.getvalue()
    assert "\x9b" not in out.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "latin-1"])
def test_a_character_that_a_pipe_lacks_is_written_otherwise(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="legato", newline="\n")
    print("Pendulum-v1 · last … 中 ę", file=stream, flush=True)
    text = raw.getvalue().decode(encoding)
    assert text.startswith("Pendulum-v1 ")
    if encoding == "ascii":
        assert text == "Pendulum-v1 - last ... \\u4e2d \\u0119\n"
