"""What is known of an algorithm without importing it: its entry. Imports no JAX."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

Learns = Literal["online", "offline", "finetuning"]
Command = Literal["nothing", "return", "goal"]


@dataclass(frozen=True)
class Task:
    """What a preset is chosen for."""

    name: str
    """the environment's id, or the dataset as it was named"""
    scratch: bool = False
    """does a fine-tuning begin with new policies?"""

    @property
    def family(self) -> str:
        """The environment's name without namespace and version."""
        return self.name.split("/")[-1].rpartition("-v")[0] or self.name

    @property
    def words(self) -> set[str]:
        """The words of the name, in small letters."""
        return set(re.findall(r"[a-z0-9]+", self.name.lower()))

    def has(self, words: str) -> bool:
        """Are all these words, apart by spaces, in the name?"""
        return self.words.issuperset(words.split())


@dataclass(frozen=True)
class Preset:
    """Named values where they differ from the defaults of hyper-parameters and of settings."""

    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """An algorithm, or a fine-tuner of the policies of one."""

    name: str
    """as commands, files and errors call it"""
    config: type[Any]
    """its hyper-parameters; the docstring is its line of `legato list`, those of the fields are their help"""
    learns: Learns
    """by acting, from logs, or by fine-tuning a policy of another algorithm"""
    module: str
    """what has its functions (see `protocol`), imported by `load`"""
    presets: Mapping[str, Callable[[Task], Preset]]
    """by name, of which every algorithm has the same"""
    title: Callable[[Any], str] | None = None
    """of hyper-parameters, the field's name for them; by default the name in capitals"""
    details: Callable[[Any], list[str]] = lambda config: []
    """of hyper-parameters, what its label says beside"""
    command: Callable[[Any], Command] = lambda config: "nothing"
    """of hyper-parameters, the command that its policies read when an episode begins"""
    discrete: bool = False
    """may actions be choices?"""
    images: bool = False
    """may observations be images?"""
    continues: tuple[str, ...] = ()
    """of a fine-tuning, the algorithms whose policies it continues"""
    play: Mapping[str, type] = field(default_factory=dict)
    """options with which a trained policy may be played otherwise than it was trained, and their types (`compose`)"""
    offers: Mapping[str, str] = field(default_factory=dict)
    """its optional functions (see `protocol`), each with the module of its folder that has it"""

    @property
    def summary(self) -> str:
        """One line."""
        return (self.config.__doc__ or "").strip()

    def label(self, config: Any) -> str:
        """The field's name for hyper-parameters: `SRL-8`, `10%BC`, `DT (cache)`."""
        details, title = self.details(config), self.name.upper() if self.title is None else self.title(config)
        return f"{title} ({', '.join(details)})" if details else title

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(self.module)

    def function(self, name: str) -> Callable[..., Any]:
        """One of its optional functions."""
        folder = self.module.rpartition(".")[0]
        return getattr(importlib.import_module(f"{folder}.{self.offers[name]}"), name)
