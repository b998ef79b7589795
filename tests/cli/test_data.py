"""`legato data`, as a person types it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_trajectories import raw, same
from tests.test_house import python

from legato.cli import main
from legato.data.formats import load, save
from legato.data.trajectories import About, trajectories
from legato.envs import tasks


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    about = About("logs", "Pendulum-v1", (-10.0, 90.0), (-2.0,) * 3, (2.0,) * 3)
    rewards = np.repeat([10.0, 20.0, 30.0], [2, 3, 5])  # returns 20, 60, 150
    save(
        trajectories(**{**raw([2, 3, 5]), "rewards": rewards}, final_observations=np.ones((3, 2)), about=about),
        "logs.npz",
    )
    return tmp_path


def said(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(["data", *args])
    return capsys.readouterr().out


def test_info_says_what_is_in_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(["info", "logs.npz"], capsys).splitlines()
    lines = {line[:19].strip(): line[19:].strip() for line in shown[: shown.index("")]}
    assert lines == {
        "dataset": "logs",
        "environment": "Pendulum-v1",
        "episodes": "3 (3 terminated, 0 truncated)",
        "steps": "10",
        "steps per episode": "mean 3.3333, median 3, from 2 to 5, middle half 2.5 to 4",
        "observation": "2 numbers",
        "action": "3 numbers, -2 to 2",
        "actions used": f"{load('logs.npz').actions.min():.3g} to {load('logs.npz').actions.max():.3g}",
        "return": "mean 76.667, median 60, from 20 to 150, middle half 40 to 105",
        "default target": "150, the mean of the best episodes that hold a tenth of the steps",
        "best near a start": "150 to 150: of the 3 episodes that began nearest to it, the best return",
        "reference returns": "-10 (random), 90 (expert)",
        "normalised return": "86.7 on average",
    }


def test_info_names_numbers_that_never_change(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = raw([4])
    given["observations"] = np.concatenate([given["observations"], np.full((4, 1), 0.1)], axis=1)
    save(trajectories(**given), "still.npz")
    shown = said(["info", "still.npz"], capsys)  # of one episode, its number never changes either
    assert "of the observation, numbers 0 and 2: nothing is learnt of what they do" in shown
    assert "of the 1 episode that began nearest to it" in shown
    assert "never change" not in said(["info", "logs.npz"], capsys)


def test_info_of_choices_without_rewards(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {**raw([4]), "rewards": None, "actions": np.array([0, 1, 1, 0])}
    save(trajectories(**given, about=About(choices=2)), "walk.hdf5")
    shown = said(["info", "walk.hdf5"], capsys)
    assert "one of 2" in shown
    assert "none: it can be imitated only" in shown
    assert "no rewards: it can be imitated only" in said(["check", "walk.hdf5"], capsys)


def test_info_has_a_row_for_every_number(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(["info", "logs.npz"], capsys)
    data = load("logs.npz")
    for name, array in (("observation", data.observations), ("action", data.actions)):
        for i, column in enumerate(array.T.astype(np.float64)):
            numbers = [f"{x:.4g}" for x in (column.min(), column.max(), column.mean(), column.std())]
            row = next(line for line in shown.splitlines() if line.startswith(f"{name} {i} "))
            assert row.split()[2:6] == numbers
    assert "% of half" in shown  # of their bounds


def test_import_of_a_table_says_what_it_decided(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("log.csv").write_text("run,x,u\n" + "".join(f"{i // 3},{i / 7},{i % 2}\n" for i in range(6)))
    options = "--observations x --actions u --episode run --low 0 --high 1"
    shown = said(["import", "log.csv", "log.npz", *options.split()], capsys).splitlines()
    assert "an episode begins where 'run' changes" in shown
    assert shown[-1] == "log.npz: 2 episodes, 6 steps"
    assert load("log.npz").about.high == (1.0,)


def test_round_trip_through_minari(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["import", "logs.npz", "mine/logs-v0"], capsys) == "mine/logs-v0: 3 episodes, 10 steps\n"
    assert said(["export", "mine/logs-v0", "logs.hdf5"], capsys) == "logs.hdf5: 3 episodes, 10 steps\n"
    same(load("logs.hdf5"), load("logs.npz"))
    assert said(["import", "logs.hdf5", "logs.arrays"], capsys) == "logs.arrays: 3 episodes, 10 steps\n"
    assert said(["export", "logs.arrays", "again/logs.npz"], capsys) == "again/logs.npz: 3 episodes, 10 steps\n"
    same(load("again/logs.npz"), load("logs.npz"))
    assert "terminated" in said(["info", "logs.arrays"], capsys)


def test_split_and_merge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(["split", "logs.npz", "--out", "a.npz", "b.npz", "--fraction", "0.7"], capsys)
    assert said(["merge", "a.npz", "b.npz", "--out", "c.npz"], capsys) == "c.npz: 3 episodes, 10 steps\n"
    assert len(load("a.npz")) == 2
    assert sorted(load("c.npz").observations[:, 0]) == sorted(load("logs.npz").observations[:, 0])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["infos", "logs.npz"], "unknown data command 'infos'; did you mean 'info'?"),
        (["info", "logz.npz"], "there is no file 'logz.npz'"),
        (["info", "logz.arrays"], "there is no folder 'logz.arrays'"),
        (["check"], "legato data check needs SOURCES: .npz or .hdf5 files"),
        (["import", "logs.csv", "new.npz", "--observations", "x", "--actions", "u"], "there is no file 'logs.csv'"),
        (["import", "logs.npz", "new.npz", "--reward", "r"], "reward name columns of a table, and 'logs.npz' is none"),
        (["import", "logs.npz", "new.npz", "--time", "t", "--gap", "x"], "'x' is no length of time"),
        (["merge", "--out", "c.npz"], "legato data merge needs SOURCES: .npz or .hdf5 files"),
        (["export", "logs.npz", "logs.npz"], "'logs.npz' exists and is not overwritten"),
        (["split", "logs.npz", "--out", "a.npz", "b.npz", "--fraction", "0.01"], "leaves one side without any"),
        (["split", "logs.npz", "--out", "a.npz", "logs.npz"], "'logs.npz' exists and is not overwritten"),
        (["split", "logs.npz", "--out", "a.npz", "a.npz"], "name two"),
        (["make", "legato/KeyToDor-v0", "--out", "a.npz"], "unknown task 'legato/KeyToDor-v0'; did you mean"),
        (["make", "Pendulum-v1", "--out", "a.npz"], "unknown task 'Pendulum-v1'; known: legato/FourRooms-v0, legato/F"),
        (["make", "legato/Recall-v0", "--out", "logs.npz"], "'logs.npz' exists and is not overwritten"),
        (["make", "legato/Nothing-v0", "--out", "logs.npz"], "'logs.npz' exists"),  # asked before any work is done
        (["make", "legato/Recall-v0", "--out", "a.txt"], "'a.txt' is no .npz or .hdf5 file, no .arrays folder"),
        (["make", "legato/Recall-v0", "--out", "a.npz", "--episodes", "0"], "one at least is needed"),
        (["check", "scalar.npz"], "flat, [steps, numbers]"),
        (["check", "reference.npz"], "reference holds two returns"),
        (["check", "narrow.npz"], "--clip-actions moves them to the bounds"),
    ],
)
def test_bad_input_is_one_line(args: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = raw([2])
    np.savez("narrow.npz", **given, low=np.full(3, -0.01), high=np.full(3, 0.01))
    np.savez("scalar.npz", observations=1.0, actions=1.0, terminals=1.0)
    np.savez("reference.npz", **given, reference=np.zeros(3))
    before = {path: path.read_bytes() for path in here.glob("*.*")}
    with pytest.raises(SystemExit) as stop:
        main(["data", *args])
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert before == {path: path.read_bytes() for path in here.glob("*.*")}


def test_clipping_is_offered_and_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("narrow.npz", **raw([2]), low=np.full(3, -0.01), high=np.full(3, 0.01))
    said(["export", "narrow.npz", "clipped.npz", "--clip-actions"], capsys)
    assert np.abs(load("clipped.npz").actions).max() <= np.float32(0.01)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("legato/ShortestPath-v0", "walks.npz"),
        ("legato/KeyToDoor-v0", "keys.hdf5"),
        ("legato/Recall-v0", "mine/recalls-v0"),
        ("legato/RecallLong-v0", "long.npz"),
        ("legato/FourRoomsSparse-v0", "sparse.npz"),
    ],
)
def test_a_set_of_a_task_is_made(name: str, target: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = tasks.generate(name, 7, 3)
    shown = said(["make", name, "--episodes", "7", "--seed", "3", "--out", target], capsys)
    assert shown == f"{target}: 7 episodes, {expected.steps} steps\n"
    named = target if "/" in target else Path(target).stem
    same(load(target), replace(expected, about=replace(expected.about, name=named)))
    assert load(target).about.environment == name


def test_minari_takes_a_set_of_a_task_in_a_process_that_made_none(here: Path) -> None:
    save(tasks.record_key_to_door(3), "keys.npz")
    done = python("from legato.cli import main; main(['data', 'import', 'keys.npz', 'mine/keys-v0'])")
    assert done.returncode == 0, done.stderr
    same(load("mine/keys-v0"), replace(load("keys.npz"), about=load("mine/keys-v0").about))
    assert load("mine/keys-v0").about.environment == "legato/KeyToDoor-v0"


def test_its_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("info", "check", "import", "export", "merge", "split", "make"):
        assert f"  {name}" in said([], capsys)


def test_its_help_names_every_array_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    words = said([], capsys).replace(",", " ").replace("'", " ").replace(":", " ").split()
    known = {"observations", "actions", "rewards", "terminations", "terminals", "truncations", "timeouts", "offsets"}
    known |= {"ends", "next_observations"} | {field.name for field in fields(About)} - {"name", "shape"}
    assert known <= set(words)
