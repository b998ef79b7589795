"""`legato finetune` from the shell: what it makes and says, its defaults, and one line for every mistake."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from tests.tiny import LOGGED, flags, logs, untrained_on_logs

from legato.algorithms import entries
from legato.cli import main
from legato.data.spec import Spec
from legato.training.run import Run
from legato.training.settings import preset as named

QUICK = {"steps": 300, "start_steps": 100, "critic_steps": 200, "critic_updates": 1, "updates": 1, "batch_size": 8}
QUICK |= {"hidden": 8, "layers": 1, "capacity": 450, "eval_every": 150, "eval_episodes": 1, "offline_steps": 0}
# What presets tell policies of a run and from scratch differently: so both share what is compiled.
QUICK |= {"critics_per_actor": 1, "noise": (0.1, 0.1, 0.1), "target_variation": 0.1, "target_increment": 0.1}
QUICK |= {"regularisation_weight": 0.0, "termination_penalty": 0.0, "tau": 0.01, "average": 0.5, "learning_rate": 1e-4}
BASE = {**LOGGED["ds4"], "norm": False}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds of Decision S4 that look as if trained from logs. Read only."""
    folder = tmp_path_factory.mktemp("logged")
    options = {**BASE, "dataset": logs(folder / "swings.npz"), "seed": 4, "seeds": 2}
    return untrained_on_logs("ds4", folder / "run", Spec(3, (-2.0,), (2.0,)), data={"environment": None}, **options)


@pytest.fixture(scope="module")
def tuned(offline: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder in which that was fine-tuned, and what the command printed. Read only."""
    folder = tmp_path_factory.mktemp("tuned")
    with (
        pytest.MonkeyPatch.context() as patched,
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
    ):
        patched.chdir(folder)
        main(["finetune", str(offline.path), "--env", "Pendulum-v1", *flags(QUICK)])
    return folder, out.getvalue(), err.getvalue()


def failed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_run_is_made_named_drawn_and_left_alone_when_finished(
    tuned: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its seeds are those of the run that it begins with."""
    folder, out, err = tuned
    assert out.strip() == "runs/ds4-ac-Pendulum-v1-4-1"
    assert "offline over 2 seeds" in err and "300/300" in err
    assert err.startswith("the replay takes 0.00 GiB per seed\n")
    run = Run(folder / out.strip())
    assert run.seeds == [4, 5] and run.label == "DS4-AC" and run.conditioned
    assert (run.path / "figures" / "finetune.png").exists()
    main(["finetune", "--resume", str(run.path), "--quiet"])
    assert capsys.readouterr().out.strip() == str(run.path)


def test_a_name_of_an_algorithm_begins_from_scratch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**QUICK, "steps": 150, "seeds": 2}
    begun = ["finetune", "ds4", "--env", "Pendulum-v1", "--target", "-150", "--quiet", *flags(options)]
    main([*begun, "--base", *(f"{name}={str(value).lower()}" for name, value in BASE.items())])
    run = Run(here / capsys.readouterr().out.strip())
    assert (run.method, run.config) == ("ds4-ac", replace(named("cpu", "ds4", "")[0], **BASE))  # type: ignore[arg-type]
    assert "layers is a whole number; 'x' was given" in failed([*begun, "--base", "layers=x"], capsys)
    assert "'layers' names no hyper-parameter of ds4" in failed([*begun, "--base", "layers"], capsys)
    assert "give --target" in failed(["finetune", "ds4", "--env", "Pendulum-v1"], capsys)
    assert "name one with --env" in failed(["finetune", "ds4", "--target", "-150"], capsys)


def test_the_help_says_what_there_is_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["finetune"])
    text = capsys.readouterr().out
    for word in (*entries("finetuning"), "--resume", "paper", "cpu"):
        assert word in text


def test_the_preset_decides_the_defaults_that_help_shows(offline: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for preset in ("cpu", "paper"):
        with pytest.raises(SystemExit):
            main(["finetune", str(offline.path), "--preset", preset, "--help"])
        shown.append(" ".join(capsys.readouterr().out.split()))
    assert "--steps" in shown[0] and "(default: 1000000, ≥1)" in shown[1] and "(default: 1000000, ≥1)" not in shown[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--env", "Pendulum-v1"], "finetune needs a run first"),
        (["nowhere"], "'nowhere' is not a run folder"),
        (["RUN"], "names an environment: name one with --env"),
        (["RUN", "--method", "ppo", "--env", "Pendulum-v1"], "is fine-tuned by ds4-ac or ds4-rw, not by 'ppo'"),
        (["RUN", "--preset", "fast"], "unknown preset 'fast'"),
        (["RUN", "--env", "Pendulum-v2"], "unknown environment 'Pendulum-v2'"),
        (["RUN", "--env", "Pendulum-v1", "--clip", "0"], "clip must be positive"),
        (["RUN", "--env", "Pendulum-v1", "--base", "layers=1"], "have their sizes already: leave out base (layers)"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    args: list[str], message: str, offline: Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(offline.path) if word == "RUN" else word for word in args]
    assert message in failed(["finetune", *given], capsys)
    assert list(here.iterdir()) == []


def test_a_fine_tuning_is_not_resumed_as_a_training(
    tuned: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, _ = tuned
    assert "resume it with finetune" in failed(["train", "--resume", str(folder / out.strip())], capsys)
