"""Files of strangers are data: whatever environment they name, nothing is imported or called because of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import jax
import minari
import numpy as np
import pytest
from tests.cli.test_cli import stop
from tests.tiny import LOGGED, UPDATES, new_policy, swings, untrained_on_logs

import legato
from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.cli import main
from legato.data import formats
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories
from legato.evaluation.fas import GRID
from legato.evaluation.sweeps import Evaluation, Sweep
from legato.training import logged_data, offline, policy_file
from legato.training.policy_file import Card
from legato.training.run import Run
from legato.training.settings import override, preset

SPEC = Spec(3, (-2.0,), (2.0,))
NAMES = ("planted:Planted-v0", "planted", "os:system", "planted:touch", "planted:Pendulum-v1", "planted:os:system")


@pytest.fixture
def trace(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that must not come to be: whoever imports `planted`, or calls what a file asks for, makes it."""
    trace, places = tmp_path / "trace", tmp_path / "places"
    for place in (places, here):
        place.mkdir(exist_ok=True)
        (place / "planted.py").write_text(
            f"import pathlib, gymnasium\npathlib.Path({str(trace)!r}).touch()\n"
            "touch = Planted = lambda *args, **kwargs: None\n"
            "gymnasium.register('Planted-v0', entry_point='planted:touch')\n"
        )
    monkeypatch.syspath_prepend(places)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    yield trace
    assert "planted" not in sys.modules
    assert not trace.exists()


def refused(command: list[Any], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """The command ends with one line, which says these."""
    code, _, err = stop([*map(str, command), *(["--quiet"] if "play" not in command else [])], capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def episodes(environment: str | None = None, **changes: Any) -> Trajectories:
    data = swings(about=About("swings", environment, low=(-2.0,), high=(2.0,)), **changes)
    return Trajectories(**{**data.__dict__, "final_observations": np.ones((len(data), 3), np.float32)})


def specification(environment: str, trace: Path) -> str:
    """What a stranger would have made."""
    wrapper = {"name": "Planted", "entry_point": "planted:Planted", "kwargs": {}}
    return json.dumps(
        {"id": environment, "entry_point": "os:system", "kwargs": {"command": f"touch {trace}"}}
        | {"additional_wrappers": [wrapper], "vector_entry_point": "planted:touch"}
    )


def planted(kind: str, environment: str, trace: Path, here: Path) -> str:
    """A dataset of this kind, which names the environment."""
    name = {"npz": "logs.npz", "hdf5": "logs.hdf5", "arrays": "logs.arrays"}.get(kind, "mine/logs-v0")
    formats.save(episodes(), name)
    if kind == "npz":
        with np.load(name) as file:
            arrays: dict[str, Any] = {**file, "environment": np.array(environment)}
        np.savez(name, **arrays)
    elif kind == "hdf5":
        with h5py.File(name, "a") as file:
            file["environment"] = environment
            file.attrs["env_spec"] = specification(environment, trace)
    elif kind == "arrays":
        np.save(here / name / "environment.npy", np.array(environment))
    else:
        path = Path(os.environ["MINARI_DATASETS_PATH"]) / name / "data" / "metadata.json"
        body = json.loads(path.read_text())
        body |= dict.fromkeys(("env_spec", "eval_env_spec"), specification(environment, trace))
        if kind == "minari without spaces":
            del body["action_space"]
        path.write_text(json.dumps(body))
    return name


@pytest.mark.parametrize("kind", ["npz", "hdf5", "arrays", "minari"])
def test_a_dataset_makes_nothing(kind: str, trace: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, environment in enumerate(NAMES[:3]):
        source = planted(kind, environment, trace, here)
        for command in ("info", "check"):
            main(["data", command, source])
        assert environment in capsys.readouterr().out
        main(["data", "import", source, f"copies/of-{number}-v0"])
        main(["data", "export", f"copies/of-{number}-v0", "back.npz"])
        assert formats.load("back.npz").about.environment == formats.load(source).about.environment == environment
        main(["data", "merge", source, "back.npz", "--out", f"copies/both-{number}-v0"])
        main(["data", "split", source, "--out", f"copies/a-{number}-v0", f"copies/b-{number}-v0"])
        for path in (Path(source), Path("back.npz")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(Path(os.environ["MINARI_DATASETS_PATH"]))


def test_a_set_without_spaces_is_refused(trace: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minari would call the entry point for them."""
    source = planted("minari without spaces", "Pendulum-v1", trace, here)
    for command in (["data", "info", source], ["data", "check", source], ["train", "bc", "--dataset", source]):
        code, _, err = stop(command, capsys)
        assert (code, err.count("\n")) == (2, 1)
        assert "'mine/logs-v0' has no action_space; environments are not made as a file describes them" in err


def test_a_set_keeps_the_name_of_its_environment_in_minari(trace: Path) -> None:
    """What is registered is kept as Minari keeps it; of all else the name."""
    for environment, entry in (("Pendulum-v1", True), ("os:Pendulum-v1", True), ("planted:Planted-v0", False)):
        name = f"kept/{environment.replace(':', '-')}"
        formats.save(episodes(environment), name if name.endswith(("-v0", "-v1")) else f"{name}-v0")
        found: Any = minari.load_dataset(name).env_spec
        assert (found.id, bool(found.entry_point)) == (environment.removeprefix("os:"), entry)


def planner(out: Path, dataset: str) -> None:
    """A run of the Trajectory Transformer of random weights."""
    sizes = {"layers": 1, "heads": 1, "size": 8, "window": 3, "context": 3, "bins": 4, "batch_size": 4}
    config, settings = override(*preset("cpu", "tt", dataset), **sizes)
    assert isinstance(config, TT)
    spec, data = logged_data.check("tt", config, settings, formats.load(dataset))  # type: ignore[arg-type]
    about = {"environment": data.about.environment, "fingerprint": offline.fingerprint(data)}
    run = Run.create(out, "tt", "cpu", config, settings, spec, about)
    known, _ = tt.prepare(config, spec, data, None, "")
    policy = new_policy(tt, config, spec, jax.random.key(0), known)
    policy_file.save(run.path / "policy" / "seed-0" / "last", policy, Card("tt", config, spec, {}))


def test_a_run_of_such_data_makes_nothing(trace: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = planted("npz", NAMES[0], trace, here)
    run = legato.train("bc", dataset=source, out="run", quiet=True, **{**LOGGED["bc"], **UPDATES, "updates": 20})
    assert run.environment == NAMES[0]
    assert legato.load("run").card.extra["environment"] == NAMES[0]
    main(["train", "--resume", "run", "--quiet"])
    capsys.readouterr()
    for command in (
        ["evaluate", "run"],
        ["play", "run"],
        ["play", "run", "--out", "film.gif"],
        ["collect", "run", "--steps", 5, "--out", "out.npz"],
        ["collect", "run/policy/seed-0/last", "--steps", 5, "--out", "out.npz"],
        ["compare", "run"],
    ):
        refused(command, capsys, f"'{NAMES[0]}' is not made", f"pass --env {NAMES[0]}")
    planner(here / "predictor", source)
    few = ["--steps", 2, "--samples", 2, "--episodes", 2, "--updates", 2]
    refused(["predict", "predictor", *few, "--film", "film.gif"], capsys, f"pass --env {NAMES[0]}")
    main(["attention", "predictor"])
    untrained_on_logs("ds4", here / "s4", SPEC, data={"environment": NAMES[0]})
    refused(["finetune", "s4"], capsys, f"pass --env {NAMES[0]}")
    assert not Path("runs").exists()


def edited(path: Path, **changes: Any) -> Path:
    """A run whose config names another environment."""
    body = json.loads((path / "config.json").read_text())
    body["settings"] |= changes
    body.pop("digests", None)  # as whoever edits it would
    (path / "config.json").write_text(json.dumps(body))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_run_s_or_a_policy_s_own_words_make_nothing(
    name: str, trace: Path, here: Path, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = edited(Path(shutil.copytree(trained[0], here / "run")), env=name, steps=400)
    card = run / "policy" / "seed-2" / "last" / "policy.json"
    said = {**json.loads(card.read_text()), "environment": name}
    said.pop("digests")  # as whoever edits it would
    card.write_text(json.dumps(said))
    legato.load(run)
    for command in (
        ["evaluate", run],
        ["play", run],
        ["compare", run],
        ["collect", run, "--steps", 5, "--out", "out.npz"],
        ["collect", card.parent, "--steps", 5, "--out", "out.npz"],
        ["train", "--resume", run],
    ):
        refused(command, capsys, f"'{name}'")
    learner = untrained_on_logs("ds4", here / "s4", SPEC, data={"environment": name})
    for env in (name, ""):
        refused(["finetune", edited(learner.path, env=env)], capsys, f"'{name}'")
    assert not Path("runs").exists()


def test_an_evaluation_s_own_words_make_nothing(trace: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_on_logs("bc", here / "run", SPEC)
    point = Sweep(GRID[:1], np.zeros((1, 1, 1)))
    kept = Evaluation("BC", NAMES[0], "last", (0,), 1, None, point)
    (run.path / "evaluation.json").write_text(json.dumps({"last": kept.to_json()}))
    refused(["compare", run.path], capsys, f"'{NAMES[0]}' is not made", f"pass --env {NAMES[0]}")


def test_options_of_a_file_are_numbers_and_words(
    trace: Path, here: Path, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A text that may be a path or a module is passed on only when the user gives it too."""
    gymnasium.register("Optional-v0", entry_point=lambda **options: gymnasium.make("Pendulum-v1", g=options["g"]))
    run = shutil.copytree(trained[0], here / "run")
    for options in ({"g": "planted:touch"}, {"g": ["../a.xml"]}, {"a": {"b.c": 1}}):
        edited(run, env="Optional-v0", env_options=options)
        refused(["play", run], capsys, "pass --env-option", "may name a file or a module")
    edited(run, env="Optional-v0", env_options={"g": 5, "name": "4x4", "file": "a/b.xml"})
    refused(["play", run], capsys, "pass --env-option file=a/b.xml")
    main(["play", str(run), "--env-option", "file=a/b.xml"])
    assert "(g=5, name=4x4, file=a/b.xml): return" in capsys.readouterr().out
