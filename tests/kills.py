"""Runs that are killed again and again at random moments, and what they end as:

    python -m tests.kills 60              # so many signals, dealt to the runs below

Every run is a command of its own. It is sent SIGKILL, SIGTERM, SIGHUP or SIGINT after a random part of the time that
it takes, resumed, and sent the next, until it ends by itself: then metrics, policies and all that a checkpoint carries
must be those of a run that nobody stopped. Where the signal can be heard, nothing may be lost: the newest checkpoint is
that of the step that the run said it stopped at.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tests import tiny
from tests.runs import load, saved

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
ONLINE = {"srl": tiny.SRL4, "sac": tiny.SAC3, "td3": tiny.SIZES}
TUNED = {"hidden": 8, "layers": 1, "batch_size": 8, "start_steps": 300, "critic_steps": 600, "steps": 1200}
TUNED |= {"eval_every": 400, "log_every": 200, "checkpoint_every": 200, "eval_episodes": 2}


def commands(folder: Path) -> dict[str, list[str]]:
    """The runs, each by its command without `--out`."""
    data = tiny.logs(folder / "logs.npz")
    found = {
        name: ["train", name, "--env", "Pendulum-v1", *tiny.flags({**sizes, **tiny.TIMES})]
        for name, sizes in ONLINE.items()
    }
    for name, sizes in tiny.LOGGED.items():
        found[name] = ["train", name, "--dataset", data, *tiny.flags({**sizes, **tiny.UPDATES, "updates": 2_000})]
    base = tiny.learn("ds4", folder / "base", data, updates=50)
    found["ds4, fine-tuned"] = ["finetune", str(base.path), "--env", "Pendulum-v1", *tiny.flags(TUNED)]
    return found


def run(args: list[str], path: Path, wait: float | None, sent: signal.Signals) -> tuple[int, str]:
    """A command, which is sent a signal after so many seconds. Its exit code, and what it said."""
    process = tiny.spawn(args, path.parent)
    try:
        _, errors = process.communicate(timeout=wait)
    except subprocess.TimeoutExpired:  # it is still at work
        process.send_signal(sent)
        _, errors = process.communicate()
    return process.returncode, errors


def compare(path: Path, unbroken: Path) -> str:
    """What differs, or nothing."""
    for found in sorted(p.relative_to(unbroken) for p in unbroken.rglob("weights.safetensors")):
        if not (path / found).exists() or (path / found).read_bytes() != (unbroken / found).read_bytes():
            return str(found)
    if (path / "metrics.csv").read_bytes() != (unbroken / "metrics.csv").read_bytes():
        return "metrics.csv"
    try:
        jax.tree.map(np.testing.assert_array_equal, load(path)[1], load(unbroken)[1])
    except AssertionError:
        return "the last checkpoint"
    return ""


def killed(args: list[str], path: Path, takes: float, draws: random.Random, left: int) -> dict[str, Any]:
    """One run until it ends, with at most `left` signals: how many came, how often it began anew, what was lost."""
    told = {"signals": 0, "begun anew": 0, "lost": "", "by": []}
    resume = [args[0], "--resume", str(path)]
    while True:
        begins = not saved(path)
        if begins and path.exists():
            shutil.rmtree(path)
            told["begun anew"] += 1
        sent = draws.choice(SIGNALS)
        wait = draws.uniform(0.2, 1.0) * takes if told["signals"] < left else None
        code, errors = run([*args, "--out", str(path)] if begins else resume, path, wait, sent)
        if code == 0:
            return told
        told["signals"] += 1
        told["by"].append(sent.name)
        stopped = re.search(r"stopped at (?:step|update) (\d+)", errors)
        if stopped and saved(path)[-1:] != [int(stopped[1])]:
            told["lost"] = f"{sent.name}: {errors.strip()}, and the checkpoint is {saved(path)[-1:]}"
        if code not in (-sent, 128 + sent):
            told["lost"] = f"{sent.name}: exit code {code}, {errors.strip()[-300:]}"
            return told


def main(count: int, seed: int = 0) -> None:
    draws, signals, identical = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known: dict[str, tuple[Path, float]] = {}
        for number, (which, args) in enumerate(itertools.cycle(commands(folder).items())):
            if signals >= count:
                break
            if which not in known:
                path, begun = folder / f"{which} unbroken", time.monotonic()
                code, errors = run([*args, "--out", str(path)], path, None, signal.SIGKILL)
                assert code == 0, errors
                known[which] = path, time.monotonic() - begun
            unbroken, takes = known[which]
            told = killed(args, path := folder / f"{which} {number}", takes, draws, min(3, count - signals))
            differs = told["lost"] or compare(path, unbroken)
            signals, identical = signals + told["signals"], identical + (not differs)
            begun = f", begun anew {told['begun anew']} times" if told["begun anew"] else ""
            print(f"{which:16} {' '.join(told['by'])}{begun}: {differs or 'identical'}", flush=True)  # noqa: T201
            shutil.rmtree(path, ignore_errors=True)
        print(f"{signals} signals, {identical} of {number} runs identical")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
