"""`legato train` on logged episodes, as a person types it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.test_cli import stop
from tests.tiny import LOGGED, UPDATES, flags, logs, nothing_learnt

import legato
from legato.cli import main
from legato.errors import LegatoWarning
from legato.training import offline
from legato.training.run import Run

SHORT = flags({**UPDATES, "updates": 60, "checkpoint_every": 50, "log_every": 50})


@pytest.mark.parametrize(
    ("algorithm", "asked", "name"),
    [
        ("dt", ["--env", "Pendulum-v1", "--targets", "2", "-1.5", "--seed", "4"], "dt-swings.npz-4-1"),
        ("ds4", ["--no-history"], "ds4-no-history-swings.npz-0-1"),
        ("iql", ["--expectile", "0.9", "--reward-shift", "-1"], "iql-swings.npz-0-1"),
        ("bc", ["--fraction", "0.25"], "25-bc-swings.npz-0-1"),
    ],
)
def test_a_run_from_logs_is_made_named_and_resumed(
    algorithm: str,
    asked: list[str],
    name: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "--no-history" in asked:  # nothing is learned: the loop's own tests do that, and here it would only take longer
        nothing_learnt(monkeypatch, offline, ("loss", "gradient_norm"))
    logs(here / "swings.npz")
    main(["train", algorithm, "--dataset", "swings.npz", *asked, *flags(LOGGED[algorithm]), *SHORT])
    out, err = capsys.readouterr()
    assert out == f"runs/{name}\n"
    run = Run(here / "runs" / name)
    assert (run.algorithm, run.preset) == (algorithm, "cpu")
    assert err.splitlines()[-1].startswith(f"{run.label} on swings.npz  60/60  ")
    assert "loss " in err
    if "--targets" in asked:
        assert run.settings.targets == (2.0, -1.5)  # type: ignore[union-attr]
        assert " asked for 2, return " in err
        assert err.rstrip().endswith(" asked for -2")
        for target, warned in ((-1.5, ""), (90, "warning: asked for 90, outside the returns of the data, ")):
            with warnings.catch_warnings():
                warnings.simplefilter("default", LegatoWarning)
                main(["play", f"runs/{name}", "--target", f"{target}", "--env", "Pendulum-v1"])
            out, err = capsys.readouterr()
            assert f" of {target:.1f} asked for in 200 steps with 200 decisions" in out
            assert err.startswith(warned)
            assert bool(err) == bool(warned)
    metrics = (run.path / "metrics.csv").read_text()
    policy = legato.load(run.path)
    assert policy.act(policy.begin(), np.zeros(3), 4)[0].shape == (4, 1)

    body = json.loads((run.path / "config.json").read_text())
    body["settings"]["updates"] = 100
    del body["digests"]
    (run.path / "config.json").write_text(json.dumps(body))
    main(["train", "--resume", f"runs/{name}", "--quiet"])
    assert capsys.readouterr() == (f"runs/{name}\n", "")
    longer = (run.path / "metrics.csv").read_text()
    assert longer.startswith(metrics)
    assert longer.splitlines()[-1].startswith("100,")


BAD: dict[str, Any] = {
    "dt": "which logs? legato train dt --dataset my_logs.hdf5",
    "bc --env Pendulum-v1": "which logs? legato train bc --dataset my_logs.hdf5",
    "bc --dataset gone.npz": "there is no file 'gone.npz'",
    "bc --dataset gone.hdf5": "there is no file 'gone.hdf5'",
    "bc --dataset logs.csv": "'logs.csv' is none of the kinds that are read: .npz, .hdf5, .h5, .arrays, or a Minari id",
    "dt --dataset D4RL/dor/human-v2": "unknown dataset 'D4RL/dor/human-v2'; did you mean 'D4RL/door/human-v2'?",
    "ds4 --dataset elsewhere": "unknown dataset 'elsewhere'; no file and no local Minari dataset has this name; "
    "--download fetches it",
    "dt --dataset swings.npz --env Hoper-v5": "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?",
    "dt --dataset swings.npz --context 0": "--context must be at least 1; 0 was given",
    "bc --dataset swings.npz --updates 0": "--updates must be at least 1; 0 was given",
    "bc --dataset swings.npz --out swings.npz": "'swings.npz' exists and is not overwritten",
    "bc --dataset swings.npz --env MountainCarContinuous-v0": "swings and 'MountainCarContinuous-v0' differ in",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_makes_nothing(
    line: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here.parent / "minari"))
    (here.parent / "minari" / "D4RL" / "door" / "human-v2" / "data").mkdir(parents=True)
    logs(here / "swings.npz")
    (here / "logs.csv").write_text("1,2")
    code, out, err = stop(["train", *line.split()], capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {BAD[line]}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in here.iterdir()) == ["logs.csv", "swings.npz"]


def test_the_dataset_decides_the_defaults_that_help_shows(capsys: pytest.CaptureFixture[str]) -> None:
    for line, shown in (
        ("dt --dataset D4RL/hopper/medium-v2 --preset paper", "(default: 3600 1800)"),
        ("dt --dataset mine.npz", "(default: 10, ≥1)"),
    ):
        code, out, _ = stop(["train", *line.split(), "--help"], capsys)
        assert code == 0
        assert shown in " ".join(out.split())
