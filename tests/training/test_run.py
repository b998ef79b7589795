"""The run folder: complete, never overwritten, and read back as it was written."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tests.tiny import untrained

import legato
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl.config import SRL
from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning
from legato.training import files
from legato.training.claim import claim
from legato.training.metrics import Metrics, kept_history
from legato.training.run import Run, label, write_text
from legato.training.session import Session
from legato.training.settings import Settings

SPEC = Spec(3, (-2.0, 0.1), (2.0, 1 / 3))
CONFIG = SRL(horizon=6, model_hidden=(5, 7), learning_rate=1e-3)
SETTINGS = Settings(env="mine/Some Env-v1", seed=3, seeds=2, updates_per_step=0.5)


def create(path: Path | None, config: SAC | SRL = CONFIG) -> Run:
    return Run.create(path, "srl" if isinstance(config, SRL) else "sac", "paper", config, SETTINGS, SPEC)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_config_is_complete_and_read_back(tmp_path: Path) -> None:
    created = create(tmp_path / "a" / "run")
    body = json.loads((created.path / "config.json").read_text())
    assert body["config"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert body["settings"] == dataclasses.asdict(SETTINGS)
    assert (body["algorithm"], body["preset"]) == ("srl", "paper")
    none = {"choices": None, "shape": None}
    assert body["spec"] == {"observation_size": 3, "low": [-2.0, 0.1], "high": [2.0, 1 / 3]} | none
    for package in ("jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "mujoco"):
        assert body["versions"][package] == version(package)
    assert body["versions"]["python"] == platform.python_version()
    assert body["versions"].get("legato", legato.__version__) == legato.__version__  # absent when not installed
    assert body["git_commit"] is None or len(body["git_commit"]) == 40
    for run in (created, Run(created.path), Run(str(created.path))):
        assert (run.algorithm, run.preset, run.config, run.settings, run.spec) == (
            "srl",
            "paper",
            CONFIG,
            SETTINGS,
            SPEC,
        )
    assert created.seeds == [3, 4]
    assert created.versions_changed() == []


def test_the_first_free_folder_is_taken_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [create(None).path for _ in range(2)]
    (tmp_path / "runs" / "srl-6-mine_Some_Env-v1-3-4").mkdir()
    paths += [create(None).path for _ in range(2)]
    assert [str(p.relative_to(tmp_path)) for p in paths] == [f"runs/srl-6-mine_Some_Env-v1-3-{n}" for n in (1, 2, 3, 5)]
    assert create(None, SAC(action_repeat=4)).place == "runs/sac-4-mine_Some_Env-v1-3-1"


def test_of_two_equal_commands_at_once_each_has_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other makes the folder that both have found free, just before this one does."""
    monkeypatch.chdir(tmp_path)
    make, others = Path.mkdir, []

    def mkdir(path: Path, *args: Any, **options: Any) -> None:
        if path.parent.name == "runs" and not others:
            others.append(path)
            make(path, parents=True)
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert create(None).place == "runs/srl-6-mine_Some_Env-v1-3-2"


def test_a_run_is_found_whatever_the_current_folder_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = create(Path("here/run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert Run(run.path).config == CONFIG
    with pytest.raises(LegatoError, match=r"^'here/run' has no seed 5"):
        run.policy_path(5)


def test_labels_are_the_fields() -> None:
    assert label("srl", SRL(horizon=8)) == "SRL-8"
    assert label("sac", SAC()) == "SAC"
    assert label("sac", SAC(action_repeat=4)) == "SAC-4"


@pytest.mark.parametrize("kind", ["run", "empty folder", "file"])
def test_what_exists_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "run":
        create(path)
    elif kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    before = tree(tmp_path)
    with pytest.raises(
        LegatoError, match="exists and is not overwritten; choose another `out`, or continue it with `resume="
    ):
        create(path, SAC())
    assert tree(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LegatoError, match=r"cannot create '.*/file/run': Not a directory"):
        create(tmp_path / "file" / "run")


# --- reading ---


def edited(tmp_path: Path, **changes: Any) -> Path:
    run = create(tmp_path / "run")
    body = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**body, **changes}))
    return run.path


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'"text"', b"[1, 2]", b"{}", b"\xff\xfe\x00", b"null"],
)
def test_what_is_no_config_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(LegatoError, match=r"config.json' is not what legato wrote \(") as problem:
        Run(tmp_path)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "ppo"},
        {"algorithm": ["srl"]},
        {"algorithm": "sac"},  # whose config has other fields
        {"config": {"horizon": 4, "junk": 1}},
        {"config": {"horizon": "four"}},
        {"config": [1]},
        {"config": None},
        {"settings": {"env": "Pendulum-v1", "junk": 1}},
        {"spec": {"observation_size": 3}},
    ],
)
def test_an_edited_config_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(LegatoError, match="is not what legato wrote"):
        Run(edited(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"env": 3}}, "settings.env must be text; 3 was given"),
        ({"settings": {"steps": 1.5}}, "settings.steps must be a whole number; 1.5 was given"),
        ({"settings": {"seeds": True}}, "settings.seeds must be a whole number; True was given"),
        ({"settings": {"backend": "isaac"}}, "settings.backend must be 'gymnasium' or 'envpool'; 'isaac' was given"),
        ({"config": {"gamma": "high"}}, "config.gamma must be a number; 'high' was given"),
        ({"config": {"gamma": math.nan}}, "it holds NaN where a number belongs"),
        ({"config": {"model_hidden": [5]}}, "must be a list of 2, each a whole number"),
        ({"config": {"predict_terminations": 1}}, "config.predict_terminations must be true or false; 1 was given"),
        ({"config": {"hidden": 10**5000}}, "it holds a whole number of 5001 digits"),
        ({"data": [1]}, "data must be named values"),
        ({"data": {"reference": [1.0]}}, "data.reference must be a list of 2, each a number"),
        ({"spec": {"observation_size": 3, "low": [1.0], "high": [-1.0]}}, "the lower ones first"),
        ({"method": "ppo"}, "there is no fine-tuner 'ppo'"),
        ({"preset": "\ud800"}, "it is not text in UTF-8"),
        ({"preset": "\0"}, "preset must be text"),
    ],
)
def test_every_field_has_the_type_that_it_was_written_with(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    sys.set_int_max_str_digits(6000)  # to write it
    path = edited(tmp_path, **changes)
    sys.set_int_max_str_digits(4300)
    with pytest.raises(LegatoError, match=r"config.json' is not what legato wrote \(") as problem:
        Run(path)
    assert words in str(problem.value)
    assert str(problem.value).isprintable()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": 1, "a": 2}', "it has 'a' twice"),
        (b'{"algorithm": "\x1b[31m', "Unterminated string"),
    ],
)
def test_json_that_means_mischief_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(LegatoError) as problem:
        Run(tmp_path)
    assert words in str(problem.value) or "Invalid control character" in str(problem.value)
    assert str(problem.value).isprintable()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe would be waited for until somebody writes into it."""
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(LegatoError, match=r"config.json' is no regular file"):
        Run(tmp_path)
    run, metrics = measured(tmp_path, 100)
    metrics.close()
    (run.path / "metrics.csv").unlink()
    os.mkfifo(run.path / "metrics.csv")
    with pytest.raises(LegatoError, match=r"metrics.csv' is no regular file"):
        kept_history(run, 100, None)


def test_a_config_that_was_edited_is_said_and_an_older_one_is_not(tmp_path: Path) -> None:
    path = edited(tmp_path, settings=dataclasses.asdict(dataclasses.replace(SETTINGS, steps=7)), note="mine")
    with pytest.warns(LegatoWarning, match="config.json': its settings changed since the run began"):
        assert Run(path).settings.seed == 3
    body = json.loads((path / "config.json").read_text())
    del body["digests"]
    (path / "config.json").write_text(json.dumps(body))
    assert Run(path).config == CONFIG


@pytest.mark.parametrize("value", [math.nan, "high", None, np.float32(0.5)])
def test_hyper_parameters_of_another_type_are_refused_before_the_folder_exists(tmp_path: Path, value: Any) -> None:
    config = dataclasses.replace(CONFIG)
    object.__setattr__(config, "gamma", value)
    with pytest.raises(LegatoError, match="hyper-parameters: gamma must be a number"):
        create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_an_edited_config_out_of_range_says_what(tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="horizon must be at least 1; 0 was given"):
        Run(edited(tmp_path, config={"horizon": 0}))


@pytest.mark.parametrize("name", ["nothing", "folder", "file", "file/below"])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(LegatoError) as problem:
        Run(tmp_path / name)
    assert str(problem.value) == f"'{tmp_path / name}' is not a run folder: it has no config.json"
    assert tree(tmp_path) == before


def test_versions_that_changed_are_named(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    body = json.loads((run.path / "config.json").read_text())
    body["versions"] |= {"jax": "0.0.1", "envpool": "9.9"}
    (run.path / "config.json").write_text(json.dumps(body))
    found = dict(line.split(" ", 1) for line in Run(run.path).versions_changed())
    assert found["jax"] == f"0.0.1 -> {version('jax')}"
    assert set(found) <= {"jax", "envpool"}


def test_policies_are_found_by_seed(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    for seed in (3, 4):
        (run.path / "policy" / f"seed-{seed}" / "last").mkdir(parents=True)
    assert run.policy_path() == run.path / "policy" / "seed-3" / "last"
    assert run.policy_path(4) == run.path / "policy" / "seed-4" / "last"
    with pytest.raises(LegatoError, match="has no seed 5; it has 3, 4"):
        run.policy_path(5)
    with pytest.raises(LegatoError, match="has no 'best' policy of seed 3 yet; was it stopped early"):
        run.policy_path(3, "best")
    with pytest.raises(LegatoError, match="unknown policy 'bst'; did you mean 'best'"):
        run.policy_path(3, "bst")  # type: ignore[arg-type]


# --- metrics ---


def test_metrics_read_back_bit_for_bit(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    metrics = Metrics(run, ["loss", "q"])
    values = [0.1 + 0.2, 1e-300, -1 / 3, 12345678.9]
    for step, value in enumerate(values):
        metrics.write(step, 3, {"loss": value})
    metrics.write(9, 4, {"q": float(np.float32(0.1)), "loss": math.inf})
    metrics.close()
    lines = (run.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,seed,loss,q"
    assert [float(line.split(",")[2]) for line in lines[1:5]] == values
    assert all(line.endswith(",") for line in lines[1:5])  # what was not measured stays empty
    assert lines[5] == f"9,4,inf,{float(np.float32(0.1))!r}"


def measured(tmp_path: Path, *steps: int) -> tuple[Run, Metrics]:
    """A run of so many rows, and its metrics, still open."""
    run = create(tmp_path / "run")
    metrics = Metrics(run, ["loss"])
    for step in steps:
        metrics.write(step, 3, {"loss": step / 7})
    return run, metrics


@pytest.mark.parametrize("older", [False, True])  # of a checkpoint that knows nothing of the history
def test_metrics_go_on_after_a_checkpoint(tmp_path: Path, older: bool) -> None:
    """Newer rows are dropped, and so is the row that a kill cut short."""
    run, metrics = measured(tmp_path, 100, 200)
    history = None if older else metrics.state()
    metrics.write(300, 3, {"loss": 300 / 7})
    metrics.close()
    text = (run.path / "metrics.csv").read_text()
    with (run.path / "metrics.csv").open("a") as file:
        file.write("150")
    metrics = Metrics(run, ["loss"], 200, kept_history(run, 200, history))
    assert (run.path / "metrics.csv").read_text() == text[: text.index("300,")]
    metrics.write(300, 3, {"loss": 300 / 7})
    metrics.close()
    assert (run.path / "metrics.csv").read_text() == text


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "a row less": lambda raw: b"".join(line for line in raw.splitlines(True) if not line.startswith(b"100,")),
    "another digit": lambda raw: raw.replace(b"14.2", b"14.3"),
    "cut": lambda raw: raw[:-30],
    "no columns": lambda raw: raw.partition(b"\n")[2],
    "empty": lambda raw: b"",
    "no text": lambda raw: b"\xff\xfe" + raw,
}


@pytest.mark.parametrize(("spoil", "older"), [(name, False) for name in SPOILS] + [("empty", True), ("no text", True)])
def test_a_history_that_was_changed_is_not_gone_on_with(tmp_path: Path, spoil: str, older: bool) -> None:
    run, metrics = measured(tmp_path, 100, 200)
    history = None if older else metrics.state()
    metrics.close()
    path = run.path / "metrics.csv"
    path.write_bytes(SPOILS[spoil](path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(LegatoError, match="move it away to go on with a history that begins there") as problem:
        kept_history(run, 200, history)
    assert str(problem.value).isprintable()
    assert path.read_bytes() == before


def test_a_history_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    run, metrics = measured(tmp_path, 100, 200)
    history = metrics.state()
    metrics.close()
    (run.path / "metrics.csv").rename(tmp_path / "away.csv")
    with pytest.warns(LegatoWarning, match="has no metrics.csv any more: its history begins at step 200"):
        kept = kept_history(run, 200, history)
    metrics = Metrics(run, ["loss"], 200, kept)
    metrics.write(300, 3, {"loss": 0.5})
    metrics.close()
    assert (run.path / "metrics.csv").read_text() == "step,seed,loss\n300,3,0.5\n"


def events(run: Run) -> list[event_pb2.Event]:
    """All that TensorBoard finds of a run: a length of 8 bytes, 4 to check it, the event and 4 to check that."""
    found = []
    for path in sorted((run.path / "tensorboard").iterdir()):
        raw = path.read_bytes()
        while raw:
            size = int.from_bytes(raw[:8], "little")
            found.append(event_pb2.Event.FromString(raw[12 : 12 + size]))
            raw = raw[16 + size :]
    return found


def test_tensorboard_keeps_the_row_of_the_checkpoint(tmp_path: Path) -> None:
    """An event that a session begins with discards those of its own step and later ones."""
    run, metrics = measured(tmp_path, 100, 200)
    history = metrics.state()
    assert [e.step for e in events(run) if e.HasField("summary")] == [100, 200]  # before it is closed, as at a kill
    metrics.close()
    Metrics(run, ["loss"], 200, kept_history(run, 200, history)).close()
    assert [e.step for e in events(run) if e.HasField("session_log")] == [201]


def test_tensorboard_events_hold_the_rows_and_the_speed(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    metrics = Metrics(run, ["loss"])
    metrics.write(100, 3, {"loss": 0.5})
    metrics.speed(100, 1234.0)
    metrics.close()
    (events,) = (run.path / "tensorboard").iterdir()
    for tag in (b"seed-3/loss", b"speed/steps_per_second"):
        assert tag in events.read_bytes()
    assert "1234" not in (run.path / "metrics.csv").read_text()  # equal runs have equal files


@pytest.mark.parametrize("name", ["metrics.csv", "evaluation.json", "figures", "policy/seed-0/last"])
def test_a_link_that_leads_out_of_a_run_is_refused(name: str, tmp_path: Path) -> None:
    """What is written to a run must not land elsewhere: nothing that its folder holds is written through."""
    run = untrained("sac", tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = run.path / name
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(LegatoError, match=f"'{run.path}/{name}' is a link that leads out of the run"):
        Run(run.path)
    assert victim.read_text() == "precious"
    place.unlink()
    (run.path / "same.json").symlink_to(run.path / "config.json")  # within it, links are harmless
    (tmp_path / "short").symlink_to(run.path)
    assert Run(tmp_path / "short").algorithm == "sac"


def test_text_is_not_written_through_what_lies_there(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("precious")
    (tmp_path / "a.json.writing").symlink_to(victim)
    path.symlink_to(victim)
    write_text(path, "{}")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("precious", "{}", False)
    assert {p.name for p in tmp_path.iterdir()} == {"victim", "a.json", "a.json.writing"}


@pytest.mark.parametrize(
    ("env", "dataset", "words"),
    [
        ("Pendulum-v1", None, "legato train --resume r"),
        ("plant:Kiln-v0", None, "legato train --resume r --env plant:Kiln-v0"),
        ("", "b.npz", "legato train --resume r --dataset b.npz"),
    ],
)
def test_how_to_go_on_says_what_has_to_be_said_again(env: str, dataset: str | None, words: str) -> None:
    run = object.__new__(Run)
    run.place, run.settings = "r", Settings(env=env)
    assert run.resume_command("train", dataset) == words


def test_options_that_were_retired_are_left_out_where_they_changed_nothing(tmp_path: Path) -> None:
    """As files of the commits that had them hold them."""
    body = {**dataclasses.asdict(CONFIG), "vary": False, "grow_over": 0, "model_steps": 0}
    assert files.instance(SRL, json.loads(json.dumps(body)), "config") == CONFIG
    for option, value in (("vary", True), ("grow_over", 100), ("model_steps", 5)):
        with pytest.raises(files.Unfit, match=rf"config.{option} is an option that was retired: CHANGELOG names"):
            files.instance(SRL, {**body, option: value}, "config")
    with pytest.raises(files.Unfit, match=r"config.critic must be 'one_step' or 'time_aware'; 'open_loop' was given"):
        files.instance(SRL, {**body, "critic": "open_loop"}, "config")


def test_a_value_out_of_its_range_is_said_of_the_file(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    file = run.path / "config.json"
    file.write_text(file.read_text().replace('"gamma": 0.99', '"gamma": 2.0'))
    words = r"config.json' is not what legato wrote \(config: gamma must lie in \[0, 1\]; 2.0 was given\)"
    with pytest.raises(LegatoError, match=words):
        Run(run.path)


def test_one_process_at_a_time_writes_to_a_run(tmp_path: Path) -> None:
    """It may open it again itself; another is refused until the first has ended."""
    run = create(tmp_path / "run")
    hold = "import pathlib, sys; from legato.training.claim import claim; kept = claim(pathlib.Path(sys.argv[1]), '');"
    command = [sys.executable, "-c", hold + "print('held', flush=True); input()", str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LegatoError, match=r"another process is at work on 'runs/a'"):
            claim(run.path, "runs/a")
        with pytest.raises(LegatoError, match=r"another process is at work on"):
            Session(run)
        other.kill()
    first, second = claim(run.path, "runs/a"), claim(run.path, "runs/a")
    assert first is second
