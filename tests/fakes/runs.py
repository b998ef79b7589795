"""Runs of both, two seeds each, which take a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import common
from tests.fakes.config import ENTRIES
from tests.tiny import logs

import legato.algorithms
from legato import api
from legato.training.run import Run

ACT = {"steps": 60, "start_steps": 10, "eval_every": 20, "log_every": 10, "checkpoint_every": 20, "eval_episodes": 1}
ACT |= {"refresh_every": 6}
READ = {"updates": 500, "eval_every": 100, "log_every": 50, "checkpoint_every": 100, "refresh_every": 150}


@contextmanager
def registered() -> Iterator[None]:
    """As if their folder were in the list."""
    known = {**legato.algorithms._entries(), **{entry.name: entry for entry in ENTRIES}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(legato.algorithms, "_entries", lambda: known)
        common.asked.clear()
        yield


def train(kind: str, path: Path, **options: Any) -> Run:
    """A run that acts ("online") or reads ("offline")."""
    given = {"quiet": True, "seeds": 2, **options}
    if kind == "online":
        return api.train("counter", "Pendulum-v1", out=path, **{**ACT, **given})
    dataset = path.parent / "logs.npz"
    return api.train("reader", dataset=dataset if dataset.exists() else logs(dataset), out=path, **{**READ, **given})
