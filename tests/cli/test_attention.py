"""`legato attention`, and `legato play` towards goals, as a person types them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import pytest
from tests.cli.test_cli import contents, stop
from tests.tiny import logs, new_policy, untrained, untrained_on_logs

import legato
from legato import api
from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.cli import main
from legato.data import formats
from legato.data.spec import Spec
from legato.envs import tasks
from legato.evaluation import evaluate as evaluating
from legato.training import logged_data, policy_file
from legato.training.policy_file import Card
from legato.training.run import Run
from legato.training.settings import OfflineSettings, override, preset

TINY: dict[str, Any] = {"layers": 2, "heads": 2, "size": 8, "window": 4, "context": 3, "bins": 5, "batch_size": 4}
TOLD: dict[str, Any] = {"returns": False, "goals": "later", "search": "likelihood", "horizon": 1, "beams": 2}


def planner(out: Path, dataset: Path, **options: Any) -> None:
    """A run of the Trajectory Transformer that looks finished, of random weights."""
    config, settings = override(*preset("cpu", "tt", str(dataset)), **TINY, **options)
    assert isinstance(config, TT)
    assert isinstance(settings, OfflineSettings)
    spec, data = logged_data.check("tt", config, settings, formats.load(dataset))
    run = Run.create(out, "tt", "cpu", config, settings, spec, {"environment": data.about.environment})
    known, _ = tt.prepare(config, spec, data, None, "")
    policy = new_policy(tt, config, spec, jax.random.key(0), known)
    policy_file.save(run.path / "policy" / "seed-0" / "last", policy, Card("tt", config, spec, {}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of policies with random weights: to goals, by return, and of a Decision Transformer."""
    folder = tmp_path_factory.mktemp("runs")
    formats.save(tasks.record_four_rooms(20), folder / "rooms.npz")
    swings = logs(folder / "swings.npz")
    planner(folder / "told", folder / "rooms.npz", **TOLD)
    planner(folder / "by_return", folder / "swings.npz", horizon=2, beams=2)
    untrained_on_logs("dt", folder / "dt", Spec(3, (-2.0,), (2.0,)), dataset=swings)
    untrained_on_logs("iql", folder / "iql", Spec(3, (-2.0,), (2.0,)), dataset=swings)
    untrained("srl", folder / "srl")
    return folder


@pytest.fixture
def beside(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, with the runs in reach."""
    (tmp_path / "runs").symlink_to(runs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "130")
    return tmp_path


@pytest.mark.parametrize(("name", "heads"), [("told", 4), ("by_return", 4), ("dt", 1)])
def test_attention_is_drawn_and_said(name: str, heads: int, beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["attention", f"runs/{name}", "--out", "seen/map.svg"])
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "drawn in seen/map.svg"
    assert "attention of the newest step's predictions, in % · episode 0, step" in out
    assert out.count("│      1 │") + out.count("│      2 │") == heads
    assert Path("seen/map.svg").read_text().count("<!-- layer") == heads


def test_window_layer_and_head_are_as_asked_for(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--dataset runs/swings.npz --episode 4 --step 3 --context 2 --layer 2 --head 1 2 --out a.svg"
    main(["attention", "runs/by_return", *words.split()])
    assert "episode 4, step 3" in capsys.readouterr().out
    text = Path("a.svg").read_text()
    assert text.count("<!-- layer 2, head") == 2
    assert "<!-- layer 1" not in text
    found = api.attention("runs/by_return", episode=4, step=3, context=2)
    assert found.steps == 2


def test_paths_to_goals_are_said_and_drawn(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["play", "runs/told", "--goal", "9", "9", "--start", "1", "1", "--every", "5", "--out", "seen/one.svg"])
    said, path = capsys.readouterr().out.splitlines()
    assert said.startswith(
        "TT (likelihood) on legato/FourRooms-v0: from (1, 1) to (9, 9), does not arrive in 100 steps w"
    )
    assert path == "seen/one.svg"
    main(["play", "runs/told", "--episodes", "3", "--episode", "1", "--every", "5", "--out", "seen/three.svg"])
    *said, arrived, path = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert arrived == f"{sum(' arrives ' in line for line in said)} of 3 arrive"
    assert "path-2" in Path(path).read_text()
    main(["play", "runs/told", "--episode", "2", "--every", "5"])
    assert capsys.readouterr().out.splitlines() == said[1:2]


def test_a_search_may_be_another_and_by_a_critic(
    beside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "GRID", (20,))
    line = "evaluate runs/by_return --env Pendulum-v1 --episodes 1 --no-clocks --quiet --critic runs/iql"
    main([*line.split(), "--search", "beams=1", "horizon=1"])
    assert "TT (+Q, beams=1, horizon=1)" in capsys.readouterr().out
    kept = json.loads((beside / "runs/by_return/evaluation.json").read_text())
    assert list(kept) == ["last+q=iql+beams=1+horizon=1"]


BAD = {
    "attention runs/told --episode 20": "rooms has episodes 0 to 19; 20 was given",
    "attention runs/told --step 999": "episode 0 of rooms has steps 0 to ",
    "attention runs/told --layer 3": "layers are numbered from 1 to 2; 3 was given",
    "attention runs/dt --head 2": "heads are numbered from 1 to 1; 2 was given",
    "attention runs/told --context 5": "this model reads 1 to 4 steps; a context of 5 was given",
    "attention runs/told --dataset runs/swings.npz": "swings has other observations or actions than this policy learnt",
    "attention runs/told --dataset nowhere.npz": "there is no file 'nowhere.npz'",
    "attention runs/told --out map.bmp": "cannot draw 'map.bmp'; the name must end in .png, .svg, .pdf",
    "attention runs/told --out runs/rooms.npz": "'runs/rooms.npz' exists and is not overwritten; choose another --out",
    "attention runs/srl": "'runs/srl' is a run of srl, which has no attention: runs of dt, odt and tt have",
    "attention nowhere": "'nowhere' is not a run folder: it has no config.json",
    "play runs/told --goal 9": "goal (9.0,) of 'legato/FourRooms-v0' is no place: two numbers from 0 to 11",
    "play runs/told --goal 11 11": "number 0 of the goal is 11; the data lies between ",
    "play runs/told --episodes 0": "at least one episode is played; 0 was given",
    "play runs/told --episodes 2 --start 1 1 --goal 2 2": "from one start to one goal all episodes are the same: leave",
    "play runs/told --out a.gif": "journeys to a goal are drawn, not filmed: --out a.png",
    "play runs/told --out runs/rooms.npz": "a film ends in .mp4 or .gif, a drawing in .png, .svg, .pdf; 'runs",
    "play runs/by_return --search beams": "'beams' says nothing of a search; write such as beams=32",
    "play runs/by_return --search beams=few": "beams is a whole number; 'few' was given",
    "play runs/by_return --search beems=3": "unknown option of a search 'beems'; did you mean 'beams'?",
    "play runs/by_return --search size=3": "unknown option of a search 'size'",
    "play runs/by_return --search context=9": "a planner cannot read 9 steps in a model of 4: lower context",
    "play runs/told --search search=return": "a search for return needs tokens of reward and value: choose search",
    "play runs/dt --search beams=3": "a policy of 'dt' takes no search and no critic: those of srl, usac, tt, mbpo,",
    "play runs/by_return --goal 1 1": "the policies of 'runs/by_return' (TT) are told no goal: leave out goal",
    "play runs/dt --env Pendulum-v1 --episodes 2": "'Pendulum-v1' has no goals to walk to",
    "play runs/dt --env Pendulum-v1 --out a.png": "'Pendulum-v1' observes no place in a plane, so there are no paths",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_changes_nothing(line: str, beside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(beside, beside / "runs" / os.curdir)
    code, out, err = stop(line.split(), capfd)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {BAD[line]}")
    assert err.count("\n") == 1
    assert contents(beside, beside / "runs" / os.curdir) == before


def test_attention_is_offered_to_python(beside: Path) -> None:
    assert legato.attention is api.attention
