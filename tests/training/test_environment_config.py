"""A run's environment: an id, a function, its options and its limit, kept with the run and found again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tests.tiny import LOGGED, learn, logs, untrained_on_logs

import legato
from legato import api
from legato.cli import main
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig, check_options, construction, make, resolve_environment
from legato.errors import LegatoError, LegatoWarning
from legato.evaluation.environment import environment_of
from legato.evaluation.episodes import play_episode
from legato.rollout import Clock
from legato.training import finetune
from legato.training.run import Run
from legato.training.settings import FinetuneSettings, OfflineSettings, Settings, environment_config

TIMES: dict[str, Any] = {"updates": 20, "eval_every": 20, "log_every": 20, "checkpoint_every": 20, "eval_episodes": 1}
WORDS = ["--updates", "20", "--eval-every", "20", "--checkpoint-every", "20", "--eval-episodes", "1", "--quiet"]


def swing(g: float = 10.0) -> gymnasium.Env:
    """A pendulum in another gravity."""
    return gymnasium.make("Pendulum-v1", g=g, max_episode_steps=9)


def stay() -> gymnasium.Env:
    return gymnasium.make("Pendulum-v1")


NAME = f"{__name__}:swing"


def longer(run: Run, updates: int = 40) -> None:
    """Let a finished run go on."""
    body = json.loads((run.path / "config.json").read_text())
    body["settings"]["updates"] = updates
    body.pop("digests")  # by which the change would be warned of
    (run.path / "config.json").write_text(json.dumps(body))


def test_a_function_its_options_and_the_limit_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"env": swing, "env_options": {"g": 5.0}, "max_episode_steps": 4}
    run = learn("bc", tmp_path / "run", logs(tmp_path / "logs.npz"), **TIMES, **options)
    kept = EnvironmentConfig(NAME, {"g": 5.0}, 4)
    assert run.environment_config == Run(run.path).environment_config == environment_of(run) == kept
    extra = legato.load(run.path).card.extra
    assert (extra["environment"], extra["env_options"], extra["max_episode_steps"]) == (NAME, {"g": 5.0}, 4)
    environment = make(kept)
    assert environment.unwrapped.g == 5.0
    policy = legato.load(run.path).policy
    assert play_episode(policy, kept, run.spec, Clock(1), 0)[1] == 4
    with pytest.warns(LegatoWarning, match=r"these are of \S+ \(g=5.0, max_episode_steps=4\): they name none"):
        collected = legato.collect(run, 9, quiet=True)
    assert (collected.lengths.tolist(), collected.about.environment) == ([4, 4, 1], None)
    with pytest.warns(LegatoWarning, match="they name none"):
        shorter = legato.collect(run.path / "policy/seed-0/last", 9, max_episode_steps=3, quiet=True)
    assert shorter.lengths[0] == 3

    monkeypatch.setattr(construction, "_factories", {})  # as in another process
    longer(run)
    for use in (lambda: legato.train(resume=run.path), lambda: legato.evaluate(run), lambda: legato.collect(run, 3)):
        with pytest.raises(LegatoError, match=f"'{NAME}' is not made.*or where a function makes it, env=that function"):
            use()
    for wrong in ({"env": stay}, {"env": swing, "env_options": {"g": 6.0}}, {"env_options": {"m": 1.0}}):
        with pytest.raises(LegatoError, match="a run keeps its environment"):
            legato.train(resume=run.path, **wrong)
    assert legato.train(resume=run.path, env=swing, env_options={"g": 5.0}, quiet=True).environment_config == kept
    rows = (run.path / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", "20", "40"]
    monkeypatch.setattr(construction, "_factories", {})
    assert main(["play", str(run.path), "--env", NAME]) is None  # the command line names functions too


def test_the_command_line_gives_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--hidden", "8", "--layers", "1", "--batch-size", str(LOGGED["bc"]["batch_size"])]
    asked = ["--env", "Pendulum-v1", "--env-option", "g=5", "--max-episode-steps", "6", "--out", "run"]
    main(["train", "bc", "--dataset", logs(tmp_path / "logs.npz"), *asked, *sizes, *WORDS])
    assert Run("run").environment_config == EnvironmentConfig("Pendulum-v1", {"g": 5}, 6)
    longer(Run("run"))
    main(["train", "--resume", "run", "--env", "Pendulum-v1", "--env-option", "g=5", "--quiet"])
    main(["play", "run"])
    main(["play", "run", "--env-option", "g=0.0", "--max-episode-steps", "3"])
    with warnings.catch_warnings():
        warnings.simplefilter("default", LegatoWarning)
        main(["collect", "run", "--steps", "5", "--out", "a.npz", "--env-option", "g=1", "--quiet"])
    out, err = capsys.readouterr()
    assert "BC on Pendulum-v1 (g=5, max_episode_steps=6): return " in out
    assert " in 6 steps " in out
    assert "BC on Pendulum-v1 (g=0.0, max_episode_steps=3): return " in out
    assert "a.npz: 1 episode, 5 steps" in out
    assert err.splitlines() == [
        "warning: logs name an environment without options, and these are of Pendulum-v1 (g=1, max_episode_steps=6): "
        "they name none"
    ]
    bad = {
        "play run --env-option g": "'g' is no option of an environment; write --env-option NAME=VALUE",
        "play run --env-option g=1 --env-option g=2": "--env-option g is given twice",
        "play run --env-option render_mode=human": "'render_mode' is no option of an environment here",
        "play run --env-option gravity=1": "environment 'Pendulum-v1' could not be made: TypeError: ",
        "play run --max-episode-steps 0": "--max-episode-steps must be a whole number of at least 1; 0 was given",
        "train sac --env Pendulum-v1 --max-episode-steps 0": "--max-episode-steps must be at least 1; 0 was given",
        "train bc --dataset logs.npz --env-option g=1": "options and time limit belong to an environment: name it",
        "train sac --env Pendulum-v1 --backend envpool --env-option g=1": "EnvPool takes no options and no other time",
        "train --resume run --env-option g=6": "'run' has g=5, not 6",
        "train --resume run --env Hopper-v5": "'run' is played in 'Pendulum-v1', not in 'Hopper-v5'",
    }
    for line, words in bad.items():
        with pytest.raises(SystemExit):
            main(line.split())
        said = capsys.readouterr().err
        assert said.startswith(f"error: {words}"), said
        assert said.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("5", 5), ("5e-1", 0.5), ("true", True), ("True", True), ("none", "none"), ("None", None)),
        *(("[1, 2]", [1, 2]), ("(1, 2)", [1, 2]), ("'5'", "5"), ("4x4", "4x4"), ("a=b", "a=b"), ("", "")),
    ],
)
def test_values_of_options(text: str, value: Any) -> None:
    from legato.cli.options import values

    assert check_options(values([f"a={text}"])) == {"a": value}


@pytest.mark.parametrize("kind", [Settings, OfflineSettings, FinetuneSettings])
def test_settings_refuse_what_is_no_option(kind: Any) -> None:
    for wrong in ({"env_options": (1, 2)}, {"max_episode_steps": 0}, {"max_episode_steps": 1.5}, {"env": 7}):
        with pytest.raises(LegatoError):
            kind(**{"env": "Pendulum-v1", **wrong})


def test_functions_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construction, "_factories", {})
    makers = [lambda g=g: swing(g) for g in (1.0, 2.0)]
    names = [resolve_environment(maker) for maker in makers]
    assert names[0] != names[1] == f"{names[0]}#2"
    assert [make(name).unwrapped.g for name in [*names, resolve_environment(makers[0])]] == [1.0, 2.0, 1.0]
    assert resolve_environment(lambda g=3.0: swing(g), recorded="x") not in names
    assert resolve_environment(makers[1], recorded=names[0]) == names[0]  # given again for that run
    for wrong in (stay(), 7):
        with pytest.raises(LegatoError, match="by the class or function that makes it; an object of"):
            resolve_environment(wrong)  # type: ignore[arg-type]
    with pytest.raises(LegatoError, match="its function returned int, no gymnasium"):
        make(resolve_environment(int))  # type: ignore[arg-type]
    with pytest.raises(LegatoError, match="are kept as JSON; give a function that makes it instead"):
        check_options({"goal": np.zeros(2)})


def test_a_fine_tuning_keeps_the_environment_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {"env": "Pendulum-v1", "env_options": {"g": 5.0}, "max_episode_steps": 7}
    run = untrained_on_logs("ds4", tmp_path / "run", Spec(3, (-2.0,), (2.0,)), **kept)
    begun: list[EnvironmentConfig] = []

    def start(source: Any, method: str, preset: str, tuning: Any, settings: FinetuneSettings, *args: Any, **rest: Any):
        begun.append(environment_config(settings))
        return run

    monkeypatch.setattr(finetune, "start", start)
    monkeypatch.setattr(api, "with_figure", lambda run: run)
    legato.finetune(run)
    main(["finetune", str(run.path), "--env", "Pendulum-v1"])
    assert begun == [EnvironmentConfig("Pendulum-v1", {"g": 5.0}, 7)] * 2
    legato.finetune(run, "MountainCarContinuous-v0")
    main(["finetune", str(run.path), "--env", "MountainCarContinuous-v0"])
    assert begun[2:] == [EnvironmentConfig("MountainCarContinuous-v0")] * 2
    legato.finetune(run, env_options={"g": 6}, max_episode_steps=8)
    main(["finetune", str(run.path), "--env-option", "g=6", "--max-episode-steps", "8"])
    assert begun[4:] == [EnvironmentConfig("Pendulum-v1", {"g": 6}, 8)] * 2
