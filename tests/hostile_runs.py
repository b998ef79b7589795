"""Files of a run that were damaged or edited, what reading them must come to, and a command that tries thousands:

    python -m tests.hostile_runs 5000

Every variant changes one file of a small run: its bytes (bits, zeros, cuts), or a value of its JSON, with digests as
they were or left out, as by a stranger. Nothing may be a traceback, hang or take memory without bound; and where the
digests are there, nothing that was read may be another thing than before without a word (`Silent`, a traceback here).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from tests import limits

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    3,
    10**9,
    10**30,
    0.5,
    -1e300,
    1e400,
    float("nan"),
    "",
    "x",
    "[/x]\x1b[31m\0",
]
VALUES += ["\ud800", [], [1], [[1.0], [2.0, 3.0]], ["a"], {}, {"a": 1}, "DEEP"]
NAMES = ("config.json", "policy.json", "weights.safetensors", "evaluation.json", "metrics.csv", "checkpoint")


class Silent(Exception):
    """Something else was read than what was written, and nobody said so."""


def make(folder: Path) -> Path:
    """The run that is spoilt: trained for a moment, with a checkpoint and an evaluation."""
    from tests.tiny import learn, logs

    from legato.evaluation.fas import GRID, FASReference
    from legato.evaluation.latency import Latency
    from legato.evaluation.sweeps import Evaluation, Sweep

    run = learn("bc", folder / "run", logs(folder / "logs.npz"), updates=4, log_every=2, checkpoint_every=4)
    returns = np.random.default_rng(0).normal(size=(1, len(GRID), 2))
    few = Sweep((1, 2), returns[:, :2])
    cost = Latency(1, 0.1, 0.1, 0.2)
    found = Evaluation(
        "BC", "Pendulum-v1", "last", (0,), 1, 0.05, Sweep(GRID, returns), few, few, FASReference(10.0), cost, cost
    )
    (run.path / "evaluation.json").write_text(json.dumps({"last": found.to_json()}))
    shutil.rmtree(run.path / "tensorboard")
    return run.path


def place(run: Path, name: str, rng: random.Random) -> Path:
    if name == "checkpoint":
        return rng.choice(sorted(path for path in (run / "checkpoints").rglob("*") if path.is_file()))
    return run / "policy" / "seed-0" / "last" / name if name in ("policy.json", "weights.safetensors") else run / name


def spoil(path: Path, rng: random.Random) -> bool:
    """Change a file. Returns whether its digests are those that were written."""
    if path.suffix == ".json" and rng.random() < 0.6:
        return spoil_json(path, rng)
    raw, how = bytearray(path.read_bytes()), rng.randrange(6)
    at = rng.randrange(max(len(raw), 1))
    if how == 0 and raw:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        raw[at : at + 16] = bytes(len(raw[at : at + 16]))
    elif how == 2:
        del raw[at:]
    elif how == 3:
        del raw[at : at + 8]
    elif how == 4:
        raw[at:at] = rng.randbytes(4)
    else:
        path.unlink()
        if rng.random() < 0.3:
            os.mkfifo(path)
        return True
    path.write_bytes(raw)
    return True


def spoil_json(path: Path, rng: random.Random) -> bool:
    body = json.loads(path.read_text())
    nodes: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            nodes.append((node, key))
            walk(value)

    walk(body)
    node, key = rng.choice(nodes)
    kept = rng.random() < 0.5
    if isinstance(node, dict) and rng.random() < 0.15:
        del node[key]
    else:
        node[key] = rng.choice(VALUES)
    if not kept:
        for part in (body, *(value for value in body.values() if isinstance(value, dict))):
            part.pop("digests", None), part.pop("digest", None)
    text = json.dumps(body).replace('"DEEP"', "[" * 50_000 + "]" * 50_000)
    path.write_text(text if rng.random() > 0.05 else text[:-1] + ', "config": {}, "config": {}}')
    return kept


def variants(folder: Path, count: int, first: int = 0) -> list[str]:
    """Folders of spoilt runs, each with the name of the file and whether a change must be noticed."""
    run, found = make(folder), []
    expected = read_all(run)
    np.savez(folder / "expected.npz", **expected)
    for i in range(first, first + count):
        rng = random.Random(i)
        name = NAMES[i % len(NAMES)]
        spoilt = folder / f"{i}"
        shutil.copytree(run, spoilt)
        path = place(spoilt, name, rng)
        noticed = spoil(path, rng)
        found.append(f"{spoilt}|{name}|{int(noticed)}|{path.relative_to(spoilt)}")
    return found


def read_all(path: Path, name: str | None = None) -> dict[str, np.ndarray]:
    """All that the files of a run say, or that of one of them, as arrays."""
    from legato import api
    from legato.evaluation import store
    from legato.training.checkpoint import Checkpoints, _flatten
    from legato.training.metrics import kept_history
    from legato.training.run import Run

    run, found = Run(path), {}
    if name in (None, "config.json"):
        parts = (run.algorithm, run.config, run.settings, run.spec, run.data)
        found["config.json"] = np.array(repr(parts).replace(str(path), "HERE"))
    if name in (None, "policy.json", "weights.safetensors"):
        policy = api.load(path)
        memory = policy.begin()
        found["policy"], _ = policy.act(memory, np.linspace(-1, 1, policy.spec.observation_size), 1)
    if name in (None, "evaluation.json"):
        kept = store.read_entries(run)
        if "last" in kept:
            found["evaluation.json"] = np.array(json.dumps(store.parse_entry(run, "last", kept["last"]).to_json()))
    if name in (None, "metrics.csv", "checkpoint"):
        checkpoints = Checkpoints(path / "checkpoints", create=False)
        step, state = checkpoints.load()
        checkpoints.close()
        history = kept_history(run, step, state["history"])
        if history is not None:
            found["metrics.csv"] = np.frombuffer(history, np.uint8)
        if name != "metrics.csv":
            found |= {f"checkpoint {key}": value for key, value in _flatten(state).items()}
    return found


def read(case: str) -> None:
    """A case of `limits.run`."""
    folder, name, noticed, _ = case.split("|")
    heard: list[Any] = []
    usual = warnings.showwarning
    warnings.showwarning = lambda *args: (heard.append(args), usual(*args))  # type: ignore[assignment]
    try:
        found = read_all(Path(folder), name)
    finally:
        warnings.showwarning = usual
    expected = np.load(Path(folder).parent / "expected.npz")
    if heard or noticed == "0":
        return
    for key, value in found.items():
        said = str(value).replace(folder, "HERE") if value.dtype.kind == "U" else None
        same = said == str(expected[key]) if said is not None else np.array_equal(value, expected[key], equal_nan=True)
        if not same:
            raise Silent(key)


def tried(count: int, first: int = 0, each: int = 250) -> list[limits.Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        cases = variants(Path(folder), count, first)
        return limits.run("tests.hostile_runs:read", cases, memory=[500 << 20] * len(cases), seconds=30, each=each)


if __name__ == "__main__":
    print(limits.report(tried(int(sys.argv[1]))))  # noqa: T201
