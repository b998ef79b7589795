"""The README: its table is what entries say, its commands can be typed, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from legato.algorithms import entries
from legato.cli import main, parsing
from legato.data.spec import Spec
from legato.training.run import Run
from legato.training.settings import override, preset

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def script() -> Any:
    """`docs/readme_table.py`, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "docs" / "readme_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_algorithms_is_what_their_entries_say() -> None:
    _, table, _ = script().parts(README)
    assert table == script().table(), "make readme"
    for name in entries("online", "offline", "finetuning"):
        assert f"`{name}`" in table


def test_what_an_algorithm_may_be_told_is_found_from_its_entry() -> None:
    told = {name: script().told(found) for name, found in entries().items()}
    assert (told["sac"], told["dt"], told["tt"]) == (["nothing"], ["a return", "nothing"], ["nothing", "a goal"])


class Read(Exception):
    """A command was read, and is not run."""


def test_every_command_can_be_typed_and_names_what_the_reader_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: Any = parsing.parse

    def stop(*args: Any) -> None:
        raise Read(read(*args))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parsing, "parse", stop)
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^\$ legato (.*)$", README, re.MULTILINE)]
    assert len(lines) > 5
    for line in lines:
        for before, word in pairwise(line):
            if word.startswith("runs/") or (word.endswith(".npz") and before != "--out"):
                assert Path(word).exists(), f"{word} is nothing that a line above makes"
        with pytest.raises(Read) as found:
            main(line)
        (values,) = found.value.args
        if line[0] == "train" and "--resume" not in line:
            algorithm, place = line[1], values.get("dataset") or values["env"]
            given = {
                name: value for name, value in values.items() if name not in ("env_option", "preset", "out", "quiet")
            }
            config, settings = override(*preset(values["preset"], algorithm, place), **given)
            Run.create(None, algorithm, values["preset"], config, settings, Spec(3, (-2.0,), (2.0,)))
        if "--out" in line:
            Path(values["out"]).touch()


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
