"""How a command is read: its options come from a function's signature or from dataclasses, and a mistake is one line.

tyro reads the words and lays out the help. What an option takes is said to it here, type by type: of types that it does
not know by itself it asks typeguard, whose import is a quarter of the time that `--help` may take.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast

import tyro

from legato import cli
from legato.errors import LegatoError, quantity, unknown
from legato.options import documentation, hints, renamed

Positional = tyro.conf.Positional  # marks a word that is known by its place
REQUIRED = ...  # in the place of a default


@dataclass(frozen=True)
class Repeated:
    """Marks an option that is given once for each of its values."""

    metavar: str


@dataclass(frozen=True)
class Option:
    """One option of a command, or one of its words that are known by their place."""

    name: str
    """as in Python"""
    hint: Any
    """its type, with what is marked in it: rules, and whether it is `Positional`"""
    help: str
    default: Any = REQUIRED

    @property
    def kind(self) -> Any:
        """Its plain type, of what may be None that without."""
        kind = typing.get_args(self.hint)[0] if self.marks else self.hint
        if typing.get_origin(kind) in (Union, types.UnionType):
            (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        return kind

    @property
    def marks(self) -> tuple[Any, ...]:
        return getattr(self.hint, "__metadata__", ())

    @property
    def typed(self) -> str:
        """As it is typed, `--batch-size`, or shown in the place of a word that is, `RUN`."""
        return self.name.upper() if Positional in self.marks else f"--{self.name.replace('_', '-')}"

    @property
    def parts(self) -> tuple[list[Any], bool]:
        """The types of the words that it takes, and whether the last may come any number of times."""
        given = typing.get_args(self.kind)
        if self.kind is bool:
            return [], False
        if typing.get_origin(self.kind) is tuple and not any(isinstance(mark, Repeated) for mark in self.marks):
            return [part for part in given if part is not ...], ... in given
        return [self.kind], False


def of_function(function: Callable[..., Any]) -> list[Option]:
    """The arguments of a function as options, explained as its docstring does below `Args:`."""
    _, _, listed = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    texts = {
        found[1]: " ".join(found[2].split())
        for found in re.finditer(r"^    (\w+): (.*(?:\n     .*)*)", listed, re.MULTILINE)
    }
    annotations = typing.get_type_hints(function, include_extras=True)
    return [
        Option(name, annotations[name], texts[name], REQUIRED if given.default is given.empty else given.default)
        for name, given in inspect.signature(function).parameters.items()
    ]


def of_dataclass(kind: type, values: Any = None, *, without: Sequence[str] = ()) -> list[Option]:
    """The fields of a dataclass as options, their defaults those of an instance, if there is one."""
    texts, annotations = documentation(kind), hints(kind)
    return [
        Option(f.name, annotations[f.name], texts[f.name], _default(f) if values is None else getattr(values, f.name))
        for f in dataclasses.fields(kind)
        if f.name not in without
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def expect(options: Iterable[Option]) -> None:
    """From now on, messages spell these as they are typed: they are options of the command at hand."""
    for option in options:
        if Positional not in option.marks:
            many = (
                "s" if any(isinstance(mark, Repeated) for mark in option.marks) else ""
            )  # --env-option, of env_options
            cli.options_at_hand[f"{option.name}{many}"] = option.typed


def call(function: Callable[..., Any], args: Sequence[str], command: str) -> None:
    """Call a function with what was typed."""
    summary = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")[0]
    function(**parse(of_function(function), args, command, summary))


def parse(options: Iterable[Option], args: Sequence[str], command: str, summary: str) -> dict[str, Any]:
    """The value of every option by its name. Prints the help and exits where that is asked for.

    Raises `LegatoError` for what is unknown, missing or of another type.
    """
    options = list(options)
    expect(options)
    if not {"-h", "--help"}.intersection(args):
        _check_flags(options, args, command)
    kind = dataclasses.make_dataclass("Options", map(_field, options))
    shown = cli.paragraphs(summary)
    found, unread = tyro.cli(kind, args=args, prog=command, description=shown, return_unknown_args=True)
    for option in options:
        if getattr(found, option.name) is REQUIRED:
            values = typing.get_args(option.kind)
            which = f", one of {', '.join(values)}" if typing.get_origin(option.kind) is Literal else ""
            raise LegatoError(f"{command} needs {option.typed}: {option.help}{which}")
    if unread:
        raise LegatoError(f"'{unread[0]}' is one word too many; '{command} --help' says what is taken")
    return {option.name: getattr(found, option.name) for option in options}


def _check_flags(options: Sequence[Option], args: Sequence[str], command: str) -> None:
    """Raises `LegatoError` for an option that is unknown, or that is followed by fewer values than it takes."""
    known: dict[str, int] = {}
    endless = {option.typed for option in options if option.parts[1]}
    for option in options:
        if Positional not in option.marks:
            parts, _ = option.parts
            known |= {option.typed: 1 if option.typed in endless else len(parts)}
            known |= {f"--no{option.typed[1:]}": 0} if option.kind is bool else {}
    for word in args:
        if re.fullmatch(r"-[a-zA-Z]\w*", word) and word not in ("-h", "-inf", "-nan"):
            raise unknown_option(word, known, command)
    words = [word.replace("_", "-") if re.match("--[a-zA-Z]", word) else "" for word in args]
    for place, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        if flag and flag not in known:
            raise unknown_option(flag, known, command)
        following = next((n for n, later in enumerate(words[place + 1 :]) if later), len(words) - place - 1)
        if flag and following + bool(equals) < (needed := known[flag]):
            least = "at least " if flag in endless else ""
            raise LegatoError(f"{flag} takes {least}{quantity(needed, 'value')}; {following} given")


def unknown_option(flag: str, known: Iterable[str], command: str) -> LegatoError:
    """The error for an option that a command does not have: what it is called now, or the nearest that there is."""
    known = list(known)
    name = flag.removeprefix("--").replace("-", "_")
    for old in (name, name.removeprefix("no_")):
        if (now := renamed(old, [option.removeprefix("--").replace("-", "_") for option in known])) is not None:
            return LegatoError(f"'--{old.replace('_', '-')}' is called '--{now.replace('_', '-')}' now")
    if (counted := {"--steps": "--updates", "--updates": "--steps"}.get(flag)) in known:  # by acting, and from logs
        return LegatoError(f"unknown option '{flag}'; did you mean '{counted}'?")
    return unknown("option", flag, known, f"'{command} --help' lists what there is")


# --- what an option takes ---


def _field(option: Option) -> tuple[Any, Any, Any]:
    """A field of which tyro makes an option: name, annotation and default."""
    repeated = [mark.metavar for mark in option.marks if isinstance(mark, Repeated)]
    positional = [mark for mark in option.marks if mark is Positional]
    if option.kind is bool:
        what: list[Any] = [bool]
    elif repeated:
        what = [tuple, tyro.conf.UseAppendAction]
    else:
        what = [object, _values(option), *positional]
    metavar = option.typed if positional else repeated[0] if repeated else None
    shown = tyro.conf.arg(help=option.help, help_behavior_hint=_aside(option), metavar=metavar)
    return option.name, Annotated[(*what, shown)], dataclasses.field(default=cast(Any, option.default))


def _aside(option: Option) -> str:
    """Default and range, in brackets; no default where there is none, of which the help says what happens then."""
    value, told = option.default, []
    if value is REQUIRED:
        told = ["required"]
    elif value not in (None, (), ""):
        told = [f"default: {' '.join(map(str, value)) if isinstance(value, tuple) else value}"]
    told += [mark.range for mark in option.marks if getattr(mark, "range", "")]
    return f"({', '.join(told)})" if told else ""


def _values(option: Option) -> Any:
    """How the values of an option are read and shown."""
    parts, endless = option.parts

    def read(words: list[str]) -> Any:
        kinds = parts * len(words) if endless else parts
        found = [_value(part, word, option.typed) for part, word in zip(kinds, words, strict=True)]
        return tuple(found) if typing.get_origin(option.kind) is tuple else found[0]

    metavars = " ".join(map(_metavar, parts))
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if endless else len(parts),
        metavar=f"[{metavars} ...]" if endless else metavars,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}[kind]


def _value(kind: Any, word: str, typed: str) -> Any:
    """A word as a value of a type. Raises `LegatoError` for what is none."""
    if typing.get_origin(kind) is Literal:
        if word not in typing.get_args(kind):
            raise unknown(typed, word, typing.get_args(kind))
        return word
    try:
        return kind(word)
    except ValueError:
        raise LegatoError(
            f"{typed} takes {'a whole number' if kind is int else 'a number'}; '{word}' was given"
        ) from None
