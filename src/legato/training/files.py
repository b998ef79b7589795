"""Reads run, card and evaluation files, in one place: regular files of a bounded size, in UTF-8, whose JSON
has the types that it was written with. They may come from strangers: nothing in them is trusted, and nothing is run.

What is written carries short digests of its parts, by which a change is seen. They tell damage and edits, not forgery:
whoever changes a file on purpose can write its digests anew. Files from before there were digests have none.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import numpy as np

from legato.data.spec import UNBOUNDED, Spec
from legato.data.storage import open_regular
from legato.errors import LegatoError
from legato.options import with_present_names

LARGEST = 256 << 20  # bytes of a JSON file: evaluations of thousands of seeds stay below
DIGITS = 19  # of a whole number: 64 bits have no more
DIGESTS = "digests"


class Unfit(ValueError):
    """What stands in a file is not what belongs there; its message says where and why, but not in which file."""


def read_bytes(path: Path, largest: int) -> bytes:
    """All bytes of a regular file. Raises `LegatoError` for one of more than `largest` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise LegatoError(
                f"'{path}' has {size / 2**20:.0f} MiB; {largest / 2**20:.0f} are the most that it may have"
            )
        return file.read(size)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises `OSError` as `open` does, `LegatoError` for what is no regular file or too large, and `Unfit` for all else.
    """
    return json_object(read_bytes(path, LARGEST))


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Raises `Unfit`."""
    try:
        text = raw.decode()
        body = json.loads(text, object_pairs_hook=_once, parse_constant=_constant, parse_int=_whole)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(body, ensure_ascii=False).encode()  # half of a pair is no text
    except RecursionError:
        raise Unfit("it is nested too deeply") from None
    except UnicodeError:
        raise Unfit("it is not text in UTF-8") from None
    except json.JSONDecodeError as problem:
        raise Unfit(f"it is no JSON: {problem}") from None
    if not isinstance(body, dict):
        raise Unfit(f"it holds {_kind(body)} instead of named values")
    return body


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Unfit(f"it has '{next(name for name in names if names.count(name) > 1)}' twice")
    return found


def _constant(word: str) -> float:
    if word == "NaN":
        raise Unfit("it holds NaN where a number belongs")
    return float(word.replace("Infinity", "inf"))


def _whole(digits: str) -> int:
    if len(digits) > DIGITS + 1:
        raise Unfit(f"it holds a whole number of {len(digits)} digits")
    return int(digits)


# --- types ---


def object_of(fields: Mapping[str, Any], value: Any, name: str = "") -> dict[str, Any]:
    """The named values, of which those in `fields` have the types that these say; others are left as they are.

    A missing one is None where its type allows it. Raises `Unfit`.
    """
    if not isinstance(value, dict):
        _refuse(name or "it", "named values", value)
    below = f"{name}." if name else ""
    known = {field: check_type(kind, value.get(field), below + field) for field, kind in fields.items()}
    return {**value, **{field: found for field, found in known.items() if field in value}}


def check_type(kind: Any, value: Any, name: str) -> Any:
    """A value of JSON as what an annotation says: lists become tuples or arrays, objects the dataclass they belong to.

    Of `float | None`, `Literal`, `tuple[int, ...]`, `np.ndarray` (finite numbers) and dataclasses of these. Fields of a
    dataclass that are missing keep their default. Raises `Unfit`, naming the field and the value.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return value if value in inner and type(value) in map(type, inner) else _refuse(name, _either(inner), value)
    if origin in (Union, types.UnionType):
        if value is None:
            return None if type(None) in inner else _refuse(name, _words(kind), value)
        (other,) = (one for one in inner if one is not type(None))
        return check_type(other, value, name)
    if origin is dict:
        return value if isinstance(value, dict) else _refuse(name, "named values", value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            _refuse(name, _words(kind), value)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            _refuse(name, _words(kind), value)
        return tuple(check_type(one, x, f"{name}[{i}]") for i, (one, x) in enumerate(zip(kinds, value, strict=True)))
    if kind is np.ndarray:
        return _array(value, name)
    if dataclasses.is_dataclass(kind):
        return instance(kind, value, name)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            _refuse(name, _words(kind), value)
        return value  # a whole number stays one: what is written again is the same
    if kind is int and isinstance(value, bool):
        _refuse(name, _words(kind), value)
    if not isinstance(value, kind) or (kind is str and "\0" in value):
        _refuse(name, _words(kind), value)
    return value


def instance(kind: Any, value: Any, name: str) -> Any:
    """A dataclass from its fields by name. Raises `Unfit`, for what its own check refuses too."""
    if not isinstance(value, dict):
        _refuse(name, "named values", value)
    hints = _hints(kind)
    value = _today(kind, value, name)
    before = {field.name: field.metadata["before"] for field in dataclasses.fields(kind) if "before" in field.metadata}
    value = {**before, **value}  # an option that the file is too old to name is what it was before it was one
    if foreign := sorted(value.keys() - hints.keys()):
        raise Unfit(f"{name} has '{foreign[0]}', which there is not")
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in value:
            raise Unfit(f"{name} lacks '{field.name}'")
    values = {field: check_type(hints[field], x, f"{name}.{field}") for field, x in value.items()}
    try:
        return kind(**values)
    except LegatoError as problem:
        raise Unfit(f"{name}: {problem}") from problem


def _today(kind: Any, value: dict[str, Any], name: str) -> dict[str, Any]:
    """Values of the options that there are now, by today's names. Raises `Unfit` for one of an option that is gone.

    A dataclass's `RETIRED` are options that are gone, each with the value that changed nothing.
    """
    found = with_present_names(value, _hints(kind))
    for option, neutral in getattr(kind, "RETIRED", {}).items():
        if option in found and found.pop(option) != neutral:
            raise Unfit(f"{name}.{option} is an option that was retired: CHANGELOG names the last version that has it")
    return found


def check_types(config: Any, name: str) -> None:
    """Refuse a dataclass whose fields are not of the types that they say, as one given from Python may be.

    Raises `LegatoError`.
    """
    try:
        for field, kind in _hints(type(config)).items() if config is not None else ():
            check_type(kind, getattr(config, field), field)
    except Unfit as problem:
        raise LegatoError(f"{name}: {problem}") from None


def spec(fields: Any) -> Spec:
    """Shapes and bounds from their fields by name. Raises `Unfit`."""
    found = instance(Spec, fields, "spec")
    low, high = np.array(found.low, float), np.array(found.high, float)
    finite = np.isfinite(low).all() and np.isfinite(high).all()
    if not (found.observation_size > 0 and low.shape == high.shape == (found.action_size,) and finite):
        raise Unfit("its spec needs an observation size and as many finite lower as upper bounds")
    if found.action_size < 1 or (low > high).any() or max(abs(low).max(), abs(high).max()) > UNBOUNDED:
        raise Unfit("its spec needs bounds of one action or more, the lower ones first, within 1e30")
    if found.shape is not None and (
        min(found.shape, default=0) < 1 or math.prod(found.shape) != found.observation_size
    ):
        raise Unfit("its spec needs a shape of as many numbers as an observation has")
    if found.choices is not None and (found.choices < 1 or (found.low, found.high) != ((0.0,), (found.choices - 1.0,))):
        raise Unfit(f"its bounds are not those of {found.choices} discrete actions")
    return found


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _array(value: Any, name: str) -> np.ndarray:
    """Nested lists of numbers, all of one length."""
    if not isinstance(value, list):
        _refuse(name, "nested lists of numbers", value)
    level: list[Any] = [value]
    while level and isinstance(level[0], list):
        if len({len(part) if isinstance(part, list) else -1 for part in level}) > 1:
            raise Unfit(f"{name} has lists of different lengths")
        level = [x for part in level for x in part]
    for x in level:
        if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
            _refuse(name, "nested lists of finite numbers", x)
    return np.array(value, float)


def _refuse(name: str, wanted: str, value: Any) -> NoReturn:
    raise Unfit(f"{name} must be {wanted}; {reprlib.repr(value)} was given")


def _either(options: tuple[Any, ...]) -> str:
    return " or ".join(repr(option) for option in options)


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _words(one) for one in inner)
    if origin is Literal:
        return _either(inner)
    if origin is tuple:
        some = "a list" if inner[-1] is Ellipsis else f"a list of {len(inner)}"
        return f"{some}, each {_words(inner[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "named values"}
    return names.get(kind, "named values")


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


# --- digests ---


def add_digests(body: dict[str, Any], **others: str) -> dict[str, Any]:
    """The body with a digest of each of its parts, and `others`."""
    return {**body, DIGESTS: {**{name: digest(value) for name, value in body.items()}, **others}}


def split_digests(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The body without its digests, and these; none where it was written before there were any. Raises `Unfit`."""
    digests = body.get(DIGESTS, {})
    if not isinstance(digests, dict):
        _refuse(DIGESTS, "named values", digests)
    return {name: value for name, value in body.items() if name != DIGESTS}, digests


def changed_parts(body: dict[str, Any], digests: Mapping[str, str], apart: tuple[str, ...] = ()) -> list[str]:
    """The parts of a body whose digests are not theirs. Without a digest a part is a note that somebody added."""
    return [name for name, old in digests.items() if name not in apart and digest(body.get(name)) != old]


def digest(value: Any) -> str:
    """Of a value that JSON holds, the same before and after it was written."""
    return digest_of(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_of(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()
