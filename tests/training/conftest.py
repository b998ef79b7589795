"""Two trained runs that many tests read."""

from __future__ import annotations

import pytest
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
