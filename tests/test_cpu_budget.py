"""The budget of CPU seconds: it adds up what workers spend, and a suite that takes more fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import subprocess, sys, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def test_slow():
    burn(0.4)

def test_starts_another():
    subprocess.run([sys.executable, "-S", "-c", "import time\\nwhile time.process_time() < 0.4: pass"], check=True)
"""
FAST = "def test_fast():\n    pass\n"


def suite(folder: Path, budget: float, *args: str) -> subprocess.CompletedProcess[str]:
    """A suite of two files that takes 0.8 seconds, as a command."""
    for name, text in (("test_slow.py", SLOW), ("test_fast.py", FAST)):
        (folder / "suite").mkdir(exist_ok=True)
        (folder / "suite" / name).write_text(text)
    ini = f"[pytest]\ntestpaths = suite\ncpu_budget = {budget}\naddopts = -p no:cacheprovider -p tests.cpu_budget\n"
    (folder / "pytest.ini").write_text(ini)
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_suite_over_its_budget_fails_and_says_so(processes: str, tmp_path: Path) -> None:
    """By less than what either half of the slow file takes alone: a child's seconds count, and a worker's."""
    done = suite(tmp_path, 0.7, "-n", processes)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    assert "of the 1 in pyproject.toml (cpu_budget)" in done.stdout
    first = next(line for line in done.stdout.splitlines() if "test_slow.py" in line)
    assert first.split()[1] == "suite/test_slow.py" and 0.7 < float(first.split()[0]) < 3


@pytest.mark.parametrize(
    ("budget", "args"), [(60, ()), (0, ()), (0.7, ("suite/test_slow.py",)), (0.7, ("-k", "slow or another"))]
)
def test_a_suite_within_it_and_a_part_of_one_do_not(budget: float, args: tuple[str, ...], tmp_path: Path) -> None:
    done = suite(tmp_path, budget, *args)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr
    assert "cpu_budget" not in done.stdout
