"""One tiny run, trained and evaluated by the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from tests.tiny import SRL4, TIMES, flags

from legato.cli import main
from legato.evaluation import sweeps


@pytest.fixture(scope="package", autouse=True)
def plans_of_one_length() -> Iterator[None]:
    """Sweeps over the clock compile once instead of six times, with the same returns."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweeps, "PLAN_LENGTHS", (32,))
        yield


@pytest.fixture(scope="package")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="package")
def trained(workplace: Path) -> tuple[Path, str]:
    """The run folder `legato train` made, and what it printed."""
    args = ["train", "srl", "--env", "Pendulum-v1", *flags({**SRL4, **TIMES, "steps": 200, "seed": 2}), "--quiet"]
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(StringIO()) as printed:
        patched.chdir(workplace)
        main(args)
    return workplace / "runs" / "srl-4-Pendulum-v1-2-1", printed.getvalue()


@pytest.fixture(scope="package")
def evaluated(trained: tuple[Path, str]) -> tuple[Path, str]:
    """The same run, and what `legato evaluate` printed."""
    with redirect_stdout(StringIO()) as printed:
        main(["evaluate", str(trained[0]), "--episodes", "1", "--quiet"])
    return trained[0], printed.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
