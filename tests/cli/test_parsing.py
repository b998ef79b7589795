"""How words become options: each kind of value, the help in 80 columns, and one line for every mistake."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from legato import cli
from legato.cli import main, parsing
from legato.cli.parsing import Option, Positional, Repeated
from legato.errors import LegatoError, LegatoWarning
from legato.options import AtLeast, Interval, Positive

OPTIONS = [
    Option("run", Annotated[str, Positional], "which one"),
    Option("steps", Annotated[int, AtLeast(1, otherwise=(-1, "ever"))], "how many", 5),
    Option("gamma", Annotated[float, Interval("[0, 1)")], "how far", 0.5),
    Option("rate", Annotated[float | None, Positive()], "how fast; by default slowly", None),
    Option("sizes", tuple[int, int], "how wide", (3, 4)),
    Option("goals", tuple[float, ...], "where to", ()),
    Option("kind", Literal["one", "two"], "of which kind", "one"),
    Option("out", Path | None, "where", None),
    Option("env_option", Annotated[tuple[str, ...], Repeated("NAME=VALUE")], "an argument", ()),
    Option("quiet", bool, "say nothing", False),
]


def parsed(*words: str) -> dict[str, Any]:
    return parsing.parse(OPTIONS, words, "legato try", "Try it.")


def test_what_is_not_typed_has_its_default() -> None:
    assert parsed("a") == {"run": "a"} | {option.name: option.default for option in OPTIONS[1:]}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("a --steps 7 --gamma 1e-3 --rate 2", {"steps": 7, "gamma": 1e-3, "rate": 2.0}),
        ("--steps=-1 a", {"steps": -1}),
        ("a --sizes 1 2 --goals -1 0.5 --kind two", {"sizes": (1, 2), "goals": (-1.0, 0.5), "kind": "two"}),
        ("a --goals 1 --out x/y.png", {"goals": (1.0,), "out": Path("x/y.png")}),
        ("a --env-option g=1 --env_option h=2 --quiet", {"env_option": ("g=1", "h=2"), "quiet": True}),
        ("a --quiet --no-quiet", {"quiet": False}),
    ],
)
def test_what_is_typed_is_read_as_its_type(words: str, found: dict[str, Any]) -> None:
    assert parsed(*words.split()) == {**parsed("a"), **found}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a --stps 3", "unknown option '--stps'; did you mean '--steps'?"),
        ("--stps=3", "unknown option '--stps'; did you mean '--steps'?"),
        ("a --learning-rate 3", "unknown option '--learning-rate'; 'legato try --help' lists what there is"),
        ("a --no-steps", "unknown option '--no-steps'; did you mean '--steps'?"),
        ("a --steps", "--steps takes 1 value; 0 given"),
        ("a --goals --out x", "--goals takes at least 1 value; 0 given"),
        ("--steps --quiet a", "--steps takes 1 value; 0 given"),
        ("a --sizes 1", "--sizes takes 2 values; 1 given"),
        ("a --steps many", "--steps takes a whole number; 'many' was given"),
        ("a --goals 1 x", "--goals takes a number; 'x' was given"),
        ("a --kind twoo", "unknown --kind 'twoo'; did you mean 'two'?"),
        ("a b", "'b' is one word too many; 'legato try --help' says what is taken"),
        ("--quiet", "legato try needs RUN: which one"),
    ],
)
def test_a_mistake_is_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LegatoError) as problem:
        parsed(*words.split())
    assert str(problem.value) == message
    assert capsys.readouterr() == ("", "")


def test_the_help_says_defaults_and_ranges_within_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    lines = [" ".join(line.strip("│").split()) for line in shown.splitlines()]
    for line in (
        "RUN which one (required)",
        "--steps INT how many (default: 5, ≥1 or -1)",
        "--gamma FLOAT how far (default: 0.5, in [0,1))",
        "--rate FLOAT how fast; by default slowly (>0)",
        "--sizes INT INT how wide (default: 3 4)",
        "--goals [FLOAT ...] where to",
        "--out PATH where",
    ):
        assert line in lines


def test_arguments_of_a_function_are_explained_by_its_docstring() -> None:
    def function(source: Annotated[str, Positional], every: int | None = None) -> None:
        """Do it.

        With care.

        Args:
            source: what, as in
                the other: line
            every: how often
        """

    function.__annotations__ = {"source": Annotated[str, Positional], "every": int | None, "return": None}
    source, every = parsing.of_function(function)
    assert (source.name, source.help, source.default) == ("source", "what, as in the other: line", parsing.REQUIRED)
    assert (every.name, every.help, every.default, every.kind) == ("every", "how often", None, int)


# --- messages ---


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("lower `steps`, or `sizes`", "lower --steps, or --sizes"),
        ("choose `kind=two`, `steps=3`", "choose --kind two, --steps 3"),
        ("with `quiet=False` or `quiet=True`", "with --no-quiet or --quiet"),
        ("pass `env_options` g=1", "pass --env-option g=1"),
        ("give `capacity`, or `capacity=3`", "give capacity, or capacity=3"),  # which this command does not have
        ("import it with `late_ends`, `ends=truncated`", "import it with --late-ends, --ends truncated"),
        ("the file 'a`b'", "the file 'a`b'"),
    ],
)
def test_options_in_a_message_stand_as_they_are_typed(message: str, said: str) -> None:
    cli.options_at_hand.clear()
    parsing.expect(OPTIONS)
    assert cli.spell(message) == said


def test_errors_and_warnings_of_a_command_are_spelled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(kind: str, match: str = "") -> None:
        """Show.

        Args:
            kind: of what
            match: which
        """
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("see `match`", LegatoWarning, stacklevel=1)
        raise LegatoError("give `match`, not `steps`")

    show.__annotations__ = {"kind": Annotated[str, Positional], "match": str, "return": None}
    monkeypatch.setattr("legato.cli.list.run", lambda args: parsing.call(show, args, "legato list"))
    with pytest.raises(SystemExit):
        main(["list", "envs"])
    assert capsys.readouterr().err == "warning: see --match\nerror: give --match, not steps\n"
