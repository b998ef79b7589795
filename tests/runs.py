"""What the tests of runs share: what lies in their folders, and whether two ended alike."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from legato.training.checkpoint import Checkpoints
from legato.training.run import Run


def rows(run: Run | Path) -> list[dict[str, str]]:
    """Of the metrics."""
    path = run.path if isinstance(run, Run) else run
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def last_step(path: Path) -> int:
    """Of the metrics on disk, which another process is writing; 0 before there are any."""
    if not (path / "metrics.csv").exists():
        return 0
    lines = (path / "metrics.csv").read_text().split("\n")[1:-1]  # the last one ends with a newline
    return int(lines[-1].split(",")[0]) if lines else 0


def saved(path: Path) -> list[int]:
    """The steps of the finished checkpoints, which another process is writing."""
    folder = path / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def load(path: Path, step: int | None = None) -> tuple[int, dict[str, Any]]:
    """A checkpoint, the newest if none is named."""
    checkpoints = Checkpoints(path / "checkpoints", create=False)
    found = checkpoints.load(step)
    checkpoints.close()
    return found


def same_end(run: Path, unbroken: Path) -> None:
    """Byte for byte: the metrics, and the weights of every policy; number for number, all that is carried."""
    assert (run / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()
    found = sorted(p.relative_to(unbroken) for p in unbroken.rglob("weights.safetensors"))
    assert found == sorted(p.relative_to(run) for p in run.rglob("weights.safetensors"))
    kinds = 2 if Run(unbroken).method is None else 3  # best and last, and with what a fine-tuning began
    assert len(found) == kinds * len(Run(unbroken).seeds)
    for path in found:
        assert (run / path).read_bytes() == (unbroken / path).read_bytes(), path
    assert saved(run)[-1] == saved(unbroken)[-1]
    jax.tree.map(np.testing.assert_array_equal, load(run)[1], load(unbroken)[1])


def stop_when(process: subprocess.Popen[str], ready: Callable[[], bool], sent: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as `ready`; exit code and stderr of a process that must still be at work by then."""
    while process.poll() is None and not ready():
        time.sleep(0.005)
    early = process.poll()
    process.send_signal(sent)
    _, errors = process.communicate()
    assert early is None, f"it ended by itself: {errors}"
    return process.returncode, errors
