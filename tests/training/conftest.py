"""Two trained runs that many tests read, and the fakes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fakes.runs import registered
from tests.tiny import DECISIONS, train

from legato.training.run import Run


@pytest.fixture(scope="package")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SRL-4 on Pendulum-v1, 600 steps in one go. Read only."""
    return train("srl", tmp_path_factory.mktemp("runs") / "unbroken")


@pytest.fixture(scope="package")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SAC-3 that counts decisions, seeds 5 and 6 of two environments each, 600 steps in one go. Read only."""
    return train("sac", tmp_path_factory.mktemp("runs") / "decisions", **DECISIONS)


@pytest.fixture(scope="module")
def fakes() -> Iterator[None]:
    """The algorithms of one number can be named."""
    with registered():
        yield
