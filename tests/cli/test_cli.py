"""The commands, as a person types them: bad input is one line and changes nothing; good input does what it says."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from PIL import Image
from tests.tiny import SIZES, SRL4, TIMES, flags, nothing_learnt, spawn, untrained

import legato
from legato import api
from legato.algorithms import entries
from legato.cli import COMMANDS, data, demo, main
from legato.errors import LegatoError, LegatoWarning
from legato.evaluation.sweeps import Evaluation
from legato.training import interruption, online
from legato.training.run import Run
from legato.training.settings import PRESETS


def contents(*folders: Path) -> dict[Path, bytes | None]:
    """Every file and folder below."""
    return {p: p.read_bytes() if p.is_file() else None for folder in folders for p in sorted(folder.rglob("*"))}


def stop(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    """Exit code, stdout and stderr of a command that does not simply return."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(args)
    return ended.value.code, *capsys.readouterr()


# --- bad input ---


@pytest.fixture(scope="module")
def places(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands below are pointed at."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file.png").write_text("precious")
    (folder / "film.gif").write_text("precious")
    (folder / "empty").mkdir()
    stopped = untrained("srl", folder / "stopped")
    shutil.rmtree(stopped.path / "policy")
    other = untrained("sac", folder / "other", "MountainCarContinuous-v0")
    shutil.copytree(trained[0], folder / "damaged")
    for path in (folder / "damaged" / "checkpoints").rglob("manifest.ocdbt"):
        path.unlink()
    broken = folder / "damaged" / "policy" / "seed-2" / "last" / "weights.safetensors"
    broken.write_bytes(broken.read_bytes()[:-8])
    return {
        "RUN": str(trained[0]),
        "FOLDER": str(folder),
        "FILE": str(folder / "file.png"),
        "FILM": str(folder / "film.gif"),
        "EMPTY": str(folder / "empty"),
        "STOPPED": str(stopped.path),
        "OTHER": str(other.path),
        "DAMAGED": str(folder / "damaged"),
    }


PENDULUM = "train srl --env Pendulum-v1"
BAD = {
    # names
    "trian": "unknown command 'trian'; did you mean 'train'?",
    "xyzzy": "unknown command 'xyzzy'; known: attention, collect, compare, data, demo, evaluate, finetune, list, "
    "metrics, play, predict, train",
    "train slr --env Pendulum-v1": "unknown algorithm 'slr'; did you mean 'srl'?",
    "train srl --env Hoper-v5": "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?",
    "train srl --env=Hoper-v5 --horizon 4": "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?",
    f"{PENDULUM} --preset papr": "unknown preset 'papr'; did you mean 'paper'?",
    f"{PENDULUM} --preset": "--preset takes 1 value; 0 given",
    f"{PENDULUM} --updates 5": "unknown option '--updates'; did you mean '--steps'?",
    f"{PENDULUM} -x": "unknown option '-x'; 'legato train srl --help' lists what there is",
    "list -x": "unknown option '-x'; 'legato list --help' lists what there is",
    "train odt-online --env Pendulum-v1": "'odt-online' fine-tunes policies of odt: it goes on with a run",
    "list algoritms": "unknown list 'algoritms'; did you mean 'algorithms'?",
    "list": "legato list needs KIND: algorithms, envs (environments) or presets",
    f"{PENDULUM} --dataset logs.npz": "srl learns by acting and takes no --dataset; from logs learn bc, dt, odt, ds4",
    "list environments": "unknown list 'environments'; known: algorithms, envs, presets",
    "train srl": "which environment? legato train srl --env Pendulum-v1",
    "train --env Pendulum-v1": "train needs an algorithm first: legato train srl --env Pendulum-v1",
    # numbers
    f"{PENDULUM} --horizon 0": "--horizon must be at least 1; 0 was given",
    f"{PENDULUM} --horizon 300": "a plan of 300 steps is longer than an episode of 'Pendulum-v1' (200 steps)",
    f"{PENDULUM} --batch-size 0": "--batch-size must be at least 1; 0 was given",
    f"{PENDULUM} --steps 0": "--steps must be at least 1; 0 was given",
    f"{PENDULUM} --seed -1": "--seed must be at least 0; -1 was given",
    f"{PENDULUM} --capacity 5": "capacity 5 is smaller than a minibatch (64)",
    f"{PENDULUM} --horizon 8 --environments 2 --capacity 15": "capacity 15 is smaller than what a turn adds: 16 steps",
    f"{PENDULUM} --steps {10**20}": "--steps must be at most 1000000000000000; 100000000000000000000 was given",
    f"{PENDULUM} --updates-per-step 1e30": "updates_per_step 1e+30 gives more updates than can be counted",
    f"{PENDULUM} --updates-per-step 0.01": "updates_per_step 0.01 gives no update in 4 steps",
    "train sac --env Pendulum-v1 --action-repeat 0": "--action-repeat must be at least 1; 0 was given",
    "demo --steps 0": "--steps must be at least 1; 0 was given",
    "demo --seed -1": "--seed must be at least 0; -1 was given",
    "evaluate RUN --episodes 0": "an evaluation needs at least one episode; 0 was given",
    "evaluate RUN --max-return 0": "--max-return must be positive; 0.0 was given",
    "play RUN --every 0": "a decision interval needs 1 <= low <= high; 0 was given",
    "play RUN --delay 9": "a delay of 9 steps does not fit decisions every 4: 0 <= delay <= interval is needed",
    "play RUN --seed 7": "'RUN' has no seed 7; it has 2",
    "play RUN --target 3": "the policies of 'RUN' (SRL-4) read no target return: leave out target",
    "play RUN --episode -1": "episodes are numbered from 0; -1 was given",
    # worlds
    "train srl --env CartPole-v1": "discrete actions of 'CartPole-v1' are not supported by srl; learn "
    "them by acting with sac, temporl, or from logs with bc, dt, ds4, tt, iql",
    "train sac --env FrozenLake-v1": "discrete observations of 'FrozenLake-v1' are not supported; wrap it in",
    "compare RUN OTHER": "runs of different environments cannot be compared: MountainCarContinuous-v0, Pendulum-v1",
    # places
    f"{PENDULUM} --out RUN": "'RUN' exists and is not overwritten; choose another --out, or continue it with --resume",
    f"{PENDULUM} --out EMPTY": "'EMPTY' exists and is not overwritten; choose another --out, or continue",
    f"{PENDULUM} --out FILE": "'FILE' exists and is not overwritten; choose another --out, or continue",
    f"{PENDULUM} --out FILE/run": "cannot create 'FILE/run': Not a directory",
    "demo --out EMPTY": "'EMPTY' exists and is not overwritten; choose another --out",
    "compare RUN --out FILE": "'FILE' exists and is not overwritten; choose another --out",
    "play RUN --out FILM": "'FILM' exists and is not overwritten",
    "play RUN --out film.avi": "a film ends in .mp4 or .gif, a drawing in .png, .svg, .pdf; 'film.avi' was given",
    "evaluate RUN --search samples=8 samples=16": "a search is told 'samples' twice",
    "evaluate nowhere": "'nowhere' is not a run folder: it has no config.json",
    "evaluate EMPTY": "'EMPTY' is not a run folder: it has no config.json",
    "evaluate FILE": "'FILE' is not a run folder: it has no config.json",
    "compare RUN FILE": "'FILE' is not a run folder: it has no config.json",
    "compare nowhere": "'nowhere' is not a run folder: it has no config.json",
    "compare": "legato compare needs ",
    "metrics": "legato metrics needs ",
    "metrics RUN nowhere": "'nowhere' is not a run folder: it has no config.json",
    "metrics RUN RUN": "'RUN' is named twice",
    "metrics RUN --names retrun": "unknown metric 'retrun'; did you mean 'return'?",
    "metrics RUN --seed 7": "'RUN' has no seed 7; it has 2",
    "metrics RUN --out FILE": "'FILE' exists and is not overwritten; choose another --out",
    "metrics RUN --out curves.txt": "cannot draw 'curves.txt'; the name must end in .png, .svg, .pdf",
    "play nowhere": "'nowhere' is not a run folder: it has no config.json",
    "play FILE": "'FILE' is not a run folder: it has no config.json",
    "train --resume nowhere": "'nowhere' is not a run folder: it has no config.json",
    "train --resume FILE": "'FILE' is not a run folder: it has no config.json",
    "train --resume=EMPTY": "'EMPTY' is not a run folder: it has no config.json",
    # what a run lacks
    "train --resume STOPPED": "'STOPPED/checkpoints' holds no checkpoint: the run ended before its first one",
    "train --resume RUN --from-step 150": "no checkpoint of step 150 in 'RUN/checkpoints'; there are 200",
    "train --resume DAMAGED": "the checkpoint 'DAMAGED/checkpoints/200' is damaged; there is no older one",
    "evaluate STOPPED": "'STOPPED' has no 'last' policy of seed 0 yet; was it stopped early?",
    "compare STOPPED": "'STOPPED' has no 'last' policy of seed 0 yet; was it stopped early?",
    "play STOPPED": "'STOPPED' has no 'last' policy of seed 0 yet; was it stopped early?",
    "play DAMAGED": "'DAMAGED/policy/seed-2/last/weights.safetensors' cannot be read (",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_changes_nothing(
    line: str, places: dict[str, str], here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args, words = line.split(" "), BAD[line]
    for name, place in places.items():
        args = [arg.replace(name, place) for arg in args]
        words = words.replace(name, place)
    watched = (here, Path(places["FOLDER"]), Path(places["RUN"]).parent)
    before = contents(*watched)
    code, out, err = stop(args, capfd)  # what other libraries write past Python is seen too
    assert code == 2
    assert out == ""
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert contents(*watched) == before


def test_a_backend_that_is_missing_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "envpool.registration", raising=False)
    code, out, err = stop([*PENDULUM.split(), "--backend", "envpool"], capsys)
    assert (code, out, err) == (2, "", "error: EnvPool is not installed: pip install 'legato[envpool]'\n")
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        f"{PENDULUM} --horizon four",
        f"{PENDULUM} --steps 1.5",
        f"{PENDULUM} --cell lstm",
        f"{PENDULUM} --horzon 4",
        f"{PENDULUM} --backend cloud",
        "train sac --env Pendulum-v1 --horizon 4",
        "train srl --env",
        "train --resume RUN --from-step last",
        "train --resume RUN --horizon 4",
        "evaluate",
        "evaluate RUN --episodes many",
        "play",
        "play RUN --which worst",
        "list",
        "demo --steps few",
    ],
)
def test_options_of_the_wrong_type_are_refused_by_name(
    line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = stop(line.split(), capsys)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    wrong = [word for word in line.split() if word.startswith("--") and word != "--env" and word != "--resume"]
    assert all(word in err for word in wrong)
    assert not list(here.iterdir())


def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device", "runs/a")

    monkeypatch.setattr(online, "start", full)
    command = ["train", "srl", "--env", "Pendulum-v1"]
    assert stop(command, capsys) == (2, "", "error: 'runs/a': No space left on device\n")
    with pytest.raises(OSError, match="No space left"):
        main([*command, "--debug"])


def test_debug_shows_where_it_happened(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="unknown command 'trian'"):
        main(["trian", "--debug"])
    assert capsys.readouterr().err == ""
    process = spawn(["trian", "--debug"], tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("LegatoError: unknown command 'trian'; did you mean 'train'?\n")


def test_without_debug_a_process_says_one_line(tmp_path: Path) -> None:
    process = spawn(["evaluate", "nowhere"], tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "error: 'nowhere' is not a run folder: it has no config.json\n"


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(args: list[str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("it goes on", LegatoWarning, stacklevel=1)

    monkeypatch.setattr("legato.cli._dispatch", warned)
    main([])
    assert capsys.readouterr().err == "warning: it goes on\n"


@pytest.mark.parametrize("words", ["", "stopped at step 8; continue with: legato train --resume here"])
@pytest.mark.parametrize("command", ["train srl --env Pendulum-v1", "demo", "evaluate RUN"])
def test_ctrl_c_ends_with_130(
    command: str, words: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise interruption.Interrupted(words)

    for module, name in ((online, "start"), (api, "train"), (api, "evaluate")):
        monkeypatch.setattr(module, name, interrupted)
    assert stop(command.split(), capsys) == (130, "", f"{words or 'stopped'}\n")


# --- what there is ---


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"], ["--debug"]])
def test_help_names_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    out, err = capsys.readouterr()
    assert err == ""
    for name, text in COMMANDS.items():
        assert f"  {name} " in out
        assert text in " ".join(out.split())


ASKED = ["", *COMMANDS, *(f"train {name}" for name in entries()), "finetune ds4", "train --resume RUN"]
ASKED += [f"data {name}" for name in data.COMMANDS]


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        *((command, 80) for command in (*ASKED, *(f"data {name}" for name in data.COMMANDS))),
        ("", 20),
        ("train srl", 20),
        ("train sac", 1),
        ("evaluate", 0),
    ],
)
def test_help_fits_the_terminal(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    out, err = capsys.readouterr()
    assert "usage: " in out and err == ""
    if columns == 80:
        assert [line for line in out.splitlines() if len(line) > columns and "usage: legato data" not in line] == []


def test_what_must_be_said_comes_first_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for args, first, default in ((["srl"], "--env STR", ""), (["srl", "--env", "Hopper-v5"], "--env STR", "Hopper-v5")):
        code, out, _ = stop(["train", *args, "--help"], capsys)
        options = " ".join(out.partition("show this help message and exit")[2].split()).lstrip("│ ")
        assert code == 0 and options.startswith(first)
        assert ("(default: Pendulum-v1)" in out, f"(default: {default})" in out) == (False, bool(default))
    assert "--dataset STR" in stop(["train", "dt", "--help"], capsys)[1].partition("--env STR")[0]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"{legato.__version__}\n"


@pytest.mark.parametrize("args", [["train"], ["train", "--help"]])
def test_train_help_names_algorithms_and_presets(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    out = capsys.readouterr().out
    for name in (*entries(), *PRESETS):
        assert f"  {name} " in out


def test_defaults_in_the_help_are_those_of_preset_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    for args, steps in (("--env Hopper-v5 --preset paper", "1000000"), ("--env Pendulum-v1", "8000")):
        code, out, _ = stop(["train", "srl", *args.split(), "--help"], capsys)
        assert code == 0
        assert f"(default: {steps}, ≥1)" in " ".join(out.split())


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*args: str) -> list[str]:
        main(["list", *args])
        return capsys.readouterr().out.splitlines()

    assert [line.split()[0] for line in listed("algorithms")] == list(entries())
    assert any(line.startswith("srl ") and "Sequence Reinforcement Learning" in line for line in listed("algorithms"))
    assert [line.split()[0] for line in listed("presets")] == list(PRESETS)
    assert {"Pendulum-v1", "Hopper-v5"} <= set(listed("envs"))
    hoppers = listed("envs", "--match", "hopper")
    assert {"Hopper-v4", "Hopper-v5"} <= set(hoppers)
    assert all("hopper" in line.lower() for line in hoppers)
    assert listed("envs", "--match", "zzz") == []


# --- doing it ---


def test_train_makes_the_run_it_names(trained: tuple[Path, str]) -> None:
    path, printed = trained
    assert printed == "runs/srl-4-Pendulum-v1-2-1\n"
    run = Run(path)
    assert (run.algorithm, run.preset, run.seeds, run.settings.env) == ("srl", "cpu", [2], "Pendulum-v1")
    assert (run.config.hidden, run.config.batch_size, run.settings.steps) == (16, 16, 200)
    assert run.config.model_hidden == (16, 16)  # type: ignore[union-attr]
    with (path / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["152", "200"]
    policy = api.load(path)
    assert policy.act(policy.begin(), [0.0, 1.0, 0.0], 4)[0].shape == (4, 1)  # type: ignore[arg-type]


def test_train_says_how_it_goes_unless_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*PENDULUM.split(), *flags({**SRL4, **TIMES, "steps": 64}), "--out", "run"])
    out, err = capsys.readouterr()
    assert out == "run\n"
    (line,) = err.splitlines()
    assert re.fullmatch(r"SRL-4 on Pendulum-v1  64/64  \d+ steps/s  return -\d+\.\d", line)


def test_resume_goes_to_the_end_it_was_given(
    trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained[0], "run")
    body = json.loads(Path("run/config.json").read_text())
    body["settings"]["steps"] = 208
    Path("run/config.json").write_text(json.dumps(body))
    with warnings.catch_warnings():
        warnings.simplefilter("default", LegatoWarning)
        main(["train", "--resume", "run", "--quiet"])
    out, err = capsys.readouterr()
    assert out == "run\n"
    assert "warning: 'run/config.json': its settings changed since the run began\n" in err
    assert Path("run/metrics.csv").read_text().splitlines()[-1].startswith("208,2,")
    assert Path("run/metrics.csv").read_text().startswith((trained[0] / "metrics.csv").read_text())


@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_a_pipe_that_is_not_unicode_takes_every_table(
    evaluated: tuple[Path, str], here: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    main(["compare", str(evaluated[0]), "--quiet"])
    sys.stdout.flush()
    printed = raw.getvalue().decode(encoding)
    assert "Pendulum-v1 - last policy - 1 seed x 1 episode" in printed
    assert printed.splitlines()[-1] == "drawn in comparison.png"


def test_a_second_comparison_is_drawn_beside_the_first(
    evaluated: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("comparison.png", "comparison-2.png", "comparison-3.png"):
        before = {path: path.read_bytes() for path in here.glob("*.png")}
        main(["compare", str(evaluated[0]), "--quiet"])
        assert capsys.readouterr().out.splitlines()[-1] == f"drawn in {name}"
        assert {path: path.read_bytes() for path in here.glob("*.png") if path.name != name} == before


def test_names_in_a_file_are_shown_as_what_they_are(
    evaluated: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table and in the figure, of a label that is no markup, no mathematics and no command to a terminal."""
    shutil.copytree(evaluated[0], "run")
    body = json.loads(Path("run/evaluation.json").read_text())
    body["last"]["label"] = "[/x]\x1b[31m$\\frac{"
    del body["last"]["digest"]
    Path("run/evaluation.json").write_text(json.dumps(body))
    main(["compare", "run", "--quiet", "--out", "both.svg"])
    out, err = capsys.readouterr()
    assert "[/x]\\x1b[31m$\\frac{" in out
    assert "\x1b" not in out + err
    assert "[/x]\\x1b[31m$\\frac{" in Path("both.svg").read_text()


def test_evaluate_prints_the_numbers_and_says_where_they_are(evaluated: tuple[Path, str]) -> None:
    path, printed = evaluated
    found = Evaluation.from_json(json.loads((path / "evaluation.json").read_text())["last"])
    assert found.fas is not None
    assert found.intervals is not None
    assert found.delay is not None
    for number in (f"{found.fas.mean:.3f}", *(f"{found.asl.at(n).mean:.0f}" for n in (1, 4, 8, 16, 30))):
        assert number in printed
    assert printed.splitlines()[-1] == f"kept in {path}/evaluation.json and {path}/figures"
    for name in ("asl", "intervals", "delay"):
        with Image.open(path / "figures" / f"{name}-last.png") as figure:
            assert min(figure.size) > 300


def test_evaluate_shows_no_progress_when_quiet_and_nothing_else_on_stdout(
    evaluated: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", str(evaluated[0]), "--which", "best", "--episodes", "1", "--no-clocks", "--quiet"])
    out, err = capsys.readouterr()
    assert err == ""
    assert "best policy" in out
    assert "late" not in out
    assert set(json.loads((evaluated[0] / "evaluation.json").read_text())) == {"last", "best"}


def test_compare_draws_one_figure_of_all(
    evaluated: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(evaluated[0]), str(evaluated[0]), "--out", "both.svg"])
    out, _ = capsys.readouterr()
    assert out.count("│ SRL-4 ") == 2
    assert out.splitlines()[-1] == "drawn in both.svg"
    assert [p.name for p in here.iterdir()] == ["both.svg"]
    assert "<svg" in Path("both.svg").read_text()


def test_metrics_draws_what_runs_measured_while_training(
    trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained[0], "copy")
    main(["metrics", str(trained[0]), "copy", "--names", "episodes", "q", "--out", "both.svg"])
    out, _ = capsys.readouterr()
    last = (trained[0] / "metrics.csv").read_text().splitlines()
    column = last[0].split(",").index("q")
    assert f"{float(last[-1].split(',')[column]):.4g}" in next(line for line in out.splitlines() if "│ q " in line)
    assert out.splitlines()[-1] == "drawn in both.svg"
    drawn = Path("both.svg").read_text()
    assert all(f"<!-- {word} -->" in drawn for word in ("episodes", "q", "2 runs while training", "environment steps"))


def test_metrics_of_a_run_that_measured_nothing_are_refused(
    trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained[0], "run")
    Path("run/metrics.csv").write_text("")
    with pytest.raises(SystemExit):
        main(["metrics", "run"])
    assert capsys.readouterr().err == "error: 'run' has measured nothing yet\n"
    assert not list(here.glob("*.png"))


def test_compare_shows_searches_that_were_measured_if_asked(
    evaluated: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(evaluated[0], here / "run")
    main(["evaluate", str(run), "--search", "planner=unrolled", "--episodes", "1", "--no-clocks", "--quiet"])
    main(["evaluate", str(run), "--which", "best", "--episodes", "1", "--no-clocks", "--quiet"])
    capsys.readouterr()
    main(["compare", str(run), "--out", "alone.svg"])
    alone = capsys.readouterr().out
    main(["compare", str(run), "--searches", "--out", "both.svg"])
    both = capsys.readouterr().out
    assert (alone.count("│ SRL-4"), "planner" in alone) == (1, False)
    assert (both.count("│ SRL-4"), both.count("(+planner=unrolled)")) == (2, 1)


def test_play_tells_one_episode(trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*args: str) -> str:
        main(["play", str(trained[0]), *args])
        return capsys.readouterr().out

    assert told().endswith("in 200 steps with 50 decisions\n")  # as in training: every 4
    assert told("--every", "16", "--delay", "2").endswith("in 200 steps with 13 decisions\n")
    assert told().startswith("SRL-4 on Pendulum-v1: return -")
    assert told() == told("--seed", "2", "--which", "last", "--episode", "0")
    assert told() != told("--episode", "1")
    assert not list(here.iterdir())


def test_play_films(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setitem(gymnasium.registry, "Short-v1", replace(gymnasium.spec("Pendulum-v1"), max_episode_steps=6))
    untrained("srl", here / "run", "Short-v1")
    main(["play", "run", "--out", "films/swing.gif"])
    told, path = capsys.readouterr().out.splitlines()
    assert told.endswith("in 6 steps with 2 decisions")
    assert path == "films/swing.gif"
    with Image.open(path) as film:
        assert film.n_frames == 6


def test_demo_trains_evaluates_compares_and_says_what_next(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, on small networks and so few steps that nothing is learned."""
    nothing_learnt(monkeypatch, online)
    train, evaluate, sizes = api.train, api.evaluate, {"srl": SRL4, "sac": SIZES}
    monkeypatch.setattr(api, "train", lambda name, env, **options: train(name, env, **{**sizes[name], **options}))
    monkeypatch.setattr(api, "evaluate", lambda run, **options: evaluate(run, episodes=1, **options))
    main(["demo", "--steps", "8", "--seed", "4"])
    out, err = capsys.readouterr()
    assert len(demo.LINE_UP) == 3
    for name, label in (("srl-8", "SRL-8"), ("sac", "SAC"), ("sac-4", "SAC-4")):
        run = Run(here / "runs" / "demo-1" / name)
        assert (run.label, run.seeds, run.settings.steps) == (label, [4], 8)
        assert out.count(f"│ {label} ") == 1
        assert f"{label} on Pendulum-v1  " in err
        assert legato.load(run.path).card.extra["seed"] == 4
    with Image.open("runs/demo-1/curve.png") as figure:
        assert min(figure.size) > 300
    assert "legato.load('runs/demo-1/srl-8')" in out
    assert "legato play runs/demo-1/srl-8 --every 8 --out swing.gif" in out


def test_demo_takes_the_next_free_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def train(*args: Any, out: Path, **options: Any) -> None:
        made.append(str(out))
        raise LegatoError("enough")

    monkeypatch.setattr(api, "train", train)
    Path("runs/demo-1").mkdir(parents=True)
    for args in ([], ["--out", "mine"]):
        with pytest.raises(SystemExit):
            main(["demo", *args])
    assert made == ["runs/demo-2/srl-8", "mine/srl-8"]


def test_python_m_legato_is_the_command() -> None:
    """As a process of its own, whose signals it takes."""
    made = subprocess.run([sys.executable, "-m", "legato", "--version"], capture_output=True, text=True, check=True)
    assert made.stdout == f"{legato.__version__}\n"
