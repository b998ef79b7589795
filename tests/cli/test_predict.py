"""`legato predict`, as a person types it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.test_cli import stop
from tests.tiny import logs, swings

import legato
from legato.cli import main

TT: dict[str, Any] = {
    "layers": 1,
    "size": 8,
    "heads": 1,
    "bins": 10,
    "window": 3,
    "context": 2,
    "batch_size": 8,
    "anneal_over": 0,
}
TT |= {"edges": "uniform", "updates": 60, "eval_every": 60, "log_every": 60, "checkpoint_every": 60}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its data and other data of the same shape."""
    folder = tmp_path_factory.mktemp("learnt")
    data = logs(folder / "train.npz")
    logs(folder / "test.npz", observations=np.random.default_rng(7).normal(size=(102, 3)))
    logs(folder / "wide.npz", observations=np.random.default_rng(7).normal(size=(102, 4)))
    legato.train("tt", dataset=data, out=folder / "run", quiet=True, **TT)
    return folder


def test_it_prints_a_table_and_keeps_numbers_and_figure(
    learnt: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--steps", "6", "--samples", "8", "--updates", "20", "--out", "found", "--quiet"]
    main(["predict", str(learnt / "run"), "--dataset", str(learnt / "test.npz"), *args])
    printed = capsys.readouterr().out
    assert "kept in found/prediction.json and prediction.png" in printed
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if line.startswith("│")}
    assert {"TT (uniform)", "ensemble", "the data itself"} <= set(rows)
    assert "8 held-out episodes" in printed  # of 7 to 14 steps
    body = json.loads((here / "found" / "prediction.json").read_text())
    assert body["held_out"] and body["episodes"] == 8 and body["samples"] == 8
    assert [p["label"] for p in body["predictions"]] == ["TT (uniform)", "ensemble", "the data itself"]
    assert all(len(p["likelihood"]) == 6 for p in body["predictions"])
    shown = [float(x) for x in re.findall(r"-?\d+\.\d", rows["TT (uniform)"])]
    kept = body["predictions"][0]["likelihood"]
    np.testing.assert_allclose(shown, [kept[0], kept[4], kept[5]], atol=0.06)
    assert (here / "found" / "prediction.png").stat().st_size > 10_000


def test_without_a_dataset_it_says_what_it_was_held_against(
    learnt: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "4", "--samples", "5", "--episodes", "3", "--context", "2", "--no-ensemble", "--out", "."]
    main(["predict", str(learnt / "run"), *options, "--quiet"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 episodes, of those that were learnt from" in printed
    body = json.loads((here / "prediction.json").read_text())
    assert not body["held_out"]
    assert [p["label"] for p in body["predictions"]] == ["TT (uniform), context 2"]


BAD = {
    "SRL": "'SRL' (SRL-4) holds no model of trajectories: train one with tt",
    "RUN --samples 0": "--samples must be at least 1; 0 was given",
    "RUN --steps 14": "no episode of train has 14 steps; the longest has 14",
    "RUN --steps 4 --context 4": "the model reads 2 to 3 steps; a context of 4 was given",
    "RUN --dataset gone.npz": "there is no file 'gone.npz'",
    "RUN --dataset WIDE": "wide has observations of 4 numbers; the run was trained on 3",
    "RUN --film film.gif": "a film needs an environment, and neither the run nor its data names one",
    "nowhere": "'nowhere' is not a run folder: it has no config.json",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    learnt: Path, trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    names = {"SRL": str(trained[0]), "RUN": str(learnt / "run"), "WIDE": str(learnt / "wide.npz")}
    args = [names.get(word, word) for word in words.split()]
    code, out, err = stop(["predict", *args, "--out", "found", "--quiet"], capsys)
    expected = BAD[words]
    for short, name in names.items():
        expected = expected.replace(f"'{short}'", f"'{name}'")
    assert (code, out) == (2, "") and err.startswith(f"error: {expected}")
    assert err.count("\n") == 1 and not list(here.iterdir())


def test_data_that_changed_since_is_refused(tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = logs(tmp_path / "train.npz")
    legato.train("tt", dataset=data, out=tmp_path / "run", quiet=True, **{**TT, "updates": 1})
    (tmp_path / "train.npz").unlink()
    logs(tmp_path / "train.npz", rewards=swings().rewards + 1)
    _, _, err = stop(["predict", str(tmp_path / "run"), "--steps", "4", "--quiet"], capsys)
    assert "is not what it was when" in err
