"""Trajectories survive every file format, and files that are no trajectories are refused in one line."""

from __future__ import annotations

import mmap
import os
import tempfile
import tracemalloc
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bombs import calls
from tests.data.test_trajectories import lengths, raw, same
from tests.tiny import swings

from legato.data import checks
from legato.data.formats import check_writable, load, save
from legato.data.trajectories import About, trajectories
from legato.errors import LegatoError, LegatoWarning

ABOUT = About("logs", "Pendulum-v1", (-1200.0, -150.0), (-2.0,) * 3, (3.0,) * 3)


@pytest.fixture(autouse=True)
def local_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files in a folder."""
    return {file.name: file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])}


KINDS = st.sampled_from(["npz", "hdf5", "h5", "arrays"])


@given(lengths, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0, 5, -1]), KINDS)
def test_files_give_back_what_was_written(
    lengths: list[int], rewards: bool, ends: bool, terminated: bool, discrete: bool, start: int, kind: str
) -> None:
    given = raw(lengths, terminated=terminated)
    about = ABOUT
    if discrete:
        given["actions"] = np.arange(sum(lengths)) % 3
        about = About("logs", choices=3, start=start)
    given["rewards"] = given["rewards"] if rewards else None
    last = np.random.default_rng(1).normal(size=(len(lengths), 2)) if ends else None
    data = trajectories(**given, final_observations=last, about=about)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"logs.{kind}"
        save(data, file)
        same(load(file), data)
        assert [path.name for path in Path(folder).iterdir()] == [file.name]
        before = contents(file)
        with pytest.raises(LegatoError, match="exists and is not overwritten"):
            save(data, file)
        assert contents(file) == before


@pytest.mark.parametrize("start", [None, 0, 5, -1])
def test_minari_gives_back_what_was_written(start: int | None) -> None:
    given = raw([3, 1, 4])
    about = About("mine/logs-v0", None, (-1200.0, -150.0), (-2.0,) * 3, (3.0,) * 3)
    if start is not None:
        given["actions"] = np.arange(8) % 3
        about = replace(about, low=None, high=None, choices=3, start=start)
    data = trajectories(**given, final_observations=np.ones((3, 2)), about=about)
    save(data, "mine/logs-v0")
    same(load("mine/logs-v0"), data)
    if start is not None:  # as the environment counts
        written = next(iter(minari.load_dataset("mine/logs-v0").iterate_episodes()))
        np.testing.assert_array_equal(written.actions, start + np.arange(3))
    with pytest.raises(LegatoError, match="exists and is not overwritten"):
        save(data, "mine/logs-v0")


@pytest.mark.parametrize("environment", ["somewhere:Odd-v0", "somewhere:Odd", "Nobody/Registered-v7", "Pendulum-v1"])
def test_minari_keeps_environments_that_are_not_registered(environment: str) -> None:
    about = About("mine/odd-v0", environment, choices=3, start=5)
    data = trajectories(**{**raw([3]), "actions": [0, 1, 2]}, final_observations=np.ones((1, 2)), about=about)
    save(data, "mine/odd-v0")
    same(load("mine/odd-v0"), data)
    assert "mine/odd-v0" in minari.list_local_datasets()  # whole, by Minari's own judgement


@pytest.mark.parametrize("name", ["x/y-v0", "mine/ab.c-v0", "/etc/logs-v0", "mine/-v0", "m/logs-v0"])
def test_ids_that_minari_refuses_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    for attempt in (check_writable, partial(save, trajectories(**raw([2]), final_observations=np.ones((1, 2))))):
        with pytest.raises(LegatoError, match="no Minari id such as"):
            attempt(name)
    assert not (tmp_path / "minari").exists() or not any((tmp_path / "minari").iterdir())


def test_what_lies_where_a_minari_dataset_would_is_seen(tmp_path: Path) -> None:
    data = trajectories(**raw([2]), final_observations=np.ones((1, 2)))
    husk = tmp_path / "minari" / "mine" / "husk-v0"
    (husk / "data").mkdir(parents=True)
    with pytest.raises(LegatoError, match=r"husk-v0' would lie, holds none: delete it"):
        check_writable("mine/husk-v0")
    with pytest.raises(LegatoError, match=r"metadata\.json"):
        load("mine/husk-v0")
    (tmp_path / "minari" / "x" / "y-v0" / "data").mkdir(parents=True)  # no id of Minari's: its own list fails with it
    save(data, "mine/logs-v0")
    same(load("mine/logs-v0"), replace(data, about=replace(data.about, name="mine/logs-v0")))
    with pytest.raises(LegatoError, match="unknown dataset 'mine/log-v0'; did you mean 'mine/logs-v0'"):
        load("mine/log-v0")
    with pytest.raises(LegatoError, match="would lie within the Minari dataset"):
        check_writable("mine/logs-v0/more-v0")


def test_a_minari_dataset_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    data = trajectories(**raw([2]), final_observations=np.ones((1, 2)))
    with monkeypatch.context() as patched:
        patched.setattr(minari.dataset.minari_storage.MinariStorage, "update_metadata", full)
        with pytest.raises(LegatoError, match=r"could not be written: .*No space left"):
            save(data, "mine/deep/logs-v0")
    assert not list((tmp_path / "minari").iterdir())
    save(data, "mine/deep/logs-v0")


@pytest.mark.filterwarnings("ignore")  # Minari asks for an author
def test_minari_s_own_datasets_are_read() -> None:
    collector = minari.DataCollector(__import__("gymnasium").make("Pendulum-v1", max_episode_steps=5))
    seen = []
    for seed in range(2):
        observation, _ = collector.reset(seed=seed)
        over = False
        while not over:
            seen.append(observation)
            action = collector.action_space.sample()
            observation, _, terminated, truncated, _ = collector.step(action)
            over = terminated or truncated
    collector.create_dataset("pendulum/random-v0", ref_min_score=-1500.0, ref_max_score=-100.0)
    data = load("pendulum/random-v0")
    np.testing.assert_array_equal(data.lengths, [5, 5])
    np.testing.assert_array_equal(data.observations, seen)
    np.testing.assert_array_equal(data.final_observations[1], observation)
    assert data.truncations.sum() == 2 and not data.terminations.any()
    assert data.about == About("pendulum/random-v0", "Pendulum-v1", (-1500.0, -100.0), (-2.0,), (2.0,))


def test_d4rl_s_layout_is_read(tmp_path: Path) -> None:
    given = raw([3, 2])
    next_observations = given["observations"] + np.array([0.0, 1.0])
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        for name, value in {
            "observations": given["observations"],
            "next_observations": next_observations,
            "actions": given["actions"],
            "rewards": given["rewards"],
            "terminals": np.array([0, 0, 1, 0, 0]),
            "timeouts": np.zeros(5, bool),
        }.items():
            file.create_dataset(name, data=value)
        file.create_group("infos").create_dataset("qpos", data=np.zeros((5, 6)))
    data = load(tmp_path / "hopper.hdf5")
    np.testing.assert_array_equal(data.lengths, [3, 2])
    np.testing.assert_array_equal(data.terminations, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(data.truncations, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(data.final_observations, next_observations[[2, 4]])
    assert (data.about.low, data.about.high) == ((-1.0,) * 3, (1.0,) * 3)


def test_ends_that_the_next_episode_began_with_are_not_known(tmp_path: Path) -> None:
    """Environments that reset by themselves, recorded by who looked afterwards."""
    given = raw([3, 2, 4], terminated=False)
    after = np.append(given["observations"][1:], [[2.0, 4.0]], axis=0)
    np.savez(tmp_path / "auto.npz", **given, next_observations=after)
    with pytest.warns(LegatoWarning, match="auto: after truncated episodes, next_observations hold the next episode"):
        data = load(tmp_path / "auto.npz")
    assert data.final_observations is None
    np.testing.assert_array_equal(data.lengths, [3, 2, 4])
    after[4] += 1  # of one episode its end was seen
    np.savez(tmp_path / "seen.npz", **given, next_observations=after)
    np.testing.assert_array_equal(load(tmp_path / "seen.npz").final_observations, after[[2, 4, 8]])


def test_a_file_with_episodes_longer_than_its_environment_allows_is_warned_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", **raw([3, 201]), environment="Pendulum-v1")
    with pytest.warns(LegatoWarning, match="long has an episode of 201 steps, and 'Pendulum-v1' ends them after 200"):
        load(tmp_path / "long.npz")


def written(path: Path, **arrays: Any) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file.create_dataset(name, data=value)
    return path


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_files_that_are_no_trajectories(kind: str, tmp_path: Path) -> None:
    given = raw([3, 2])
    good = written(tmp_path / f"good.{kind}", **given)
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    empty = tmp_path / f"empty.{kind}"
    empty.write_bytes(b"")
    without = written(tmp_path / f"without.{kind}", observations=given["observations"], rewards=given["rewards"])
    endless = written(tmp_path / f"endless.{kind}", observations=given["observations"], actions=given["actions"])
    for file, words in (
        (tmp_path / f"none.{kind}", "there is no file"),
        (cut, "cannot be read, it is cut or no"),
        (empty, "cannot be read, it is cut or no"),
        (without, "has no actions; it holds observations, rewards"),
        (endless, "does not say where episodes end"),
    ):
        before = file.read_bytes() if file.exists() else None
        with pytest.raises(LegatoError, match=words) as refused:
            load(file)
        assert "\n" not in str(refused.value)
        assert before == (file.read_bytes() if file.exists() else None)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path(tmp_path / "boom").touch, ())

    file = tmp_path / "bomb.npz"
    np.savez(file, observations=np.array([Bomb()], object), actions=np.zeros(1))
    with pytest.raises(LegatoError, match="cannot be read"):
        load(file)
    assert not (tmp_path / "boom").exists()
    with zipfile.ZipFile(file) as parts:  # it would have gone off: what is called lies in the file
        assert calls(parts.read("observations.npy").partition(b"\n")[2])


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    save(trajectories(**raw([2]), final_observations=np.ones((1, 2))), "mine/hopper-v0")
    with pytest.raises(LegatoError, match="unknown dataset 'mine/hoper-v0'; did you mean 'mine/hopper-v0'"):
        load("mine/hoper-v0")
    with pytest.raises(LegatoError, match="no local Minari dataset has this name"):
        load("elsewhere/entirely/different-v7")
    (tmp_path / "logs.csv").write_text("1,2")
    with pytest.raises(LegatoError, match="none of the kinds"):
        load(tmp_path / "logs.csv")
    with pytest.raises(LegatoError, match=r"no \.npz or .hdf5 file, no \.arrays folder and no Minari id"):
        save(trajectories(**raw([2])), "logs.csv")


def test_what_minari_cannot_keep() -> None:
    with pytest.raises(LegatoError, match="observation after an episode's last step"):
        save(trajectories(**raw([2])), "mine/a-v0")
    given = {**raw([2]), "rewards": None}
    with pytest.raises(LegatoError, match="keeps rewards"):
        save(trajectories(**given, final_observations=np.ones((1, 2))), "mine/a-v0")
    wide = trajectories(**{**raw([2]), "actions": np.full((2, 3), 7.0)}, final_observations=np.ones((1, 2)))
    with pytest.raises(LegatoError, match="keeps the bounds of actions"):
        save(wide, "mine/a-v0")
    assert not minari.list_local_datasets()


@pytest.mark.parametrize("kind", ["npz", "arrays"])
def test_a_write_that_fails_leaves_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, write = [3], np.save  # the disk has room for three arrays

    def full(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if kind == "npz" or left[0] < 0:
            raise OSError(28, "No space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(np, "savez", full)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(LegatoError, match=r"could not be written: .*No space left"):
        save(trajectories(**raw([2])), tmp_path / f"logs.{kind}")
    assert list(tmp_path.iterdir()) == []


# --- folders of arrays ---


def mapped(array: np.ndarray) -> bool:
    """Does the array lie in a file?"""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_folder_is_mapped_and_never_read_whole(
    discrete: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, width = 40_000, 16
    given, about = raw([1000] * (steps // 1000 - 1) + [600, 400]), replace(ABOUT, environment=None)
    given["observations"] = np.random.default_rng(0).normal(size=(steps, width))
    if discrete:
        given["actions"], about = np.arange(steps) % 3, About(choices=3)
    save(trajectories(**given, about=about), tmp_path / "big.arrays")
    before = contents(tmp_path / "big.arrays")
    monkeypatch.setattr(checks, "CHUNK", 1000)
    tracemalloc.start()
    data = load(tmp_path / "big.arrays", clip_actions=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = (data.observations, data.actions, data.rewards, data.terminations, data.truncations)
    assert all(mapped(array) and not array.flags.writeable for array in arrays)
    assert peak < 0.2 * data.observations.nbytes
    assert contents(tmp_path / "big.arrays") == before


def test_a_folder_by_hand_needs_no_suffix_and_no_layout(tmp_path: Path) -> None:
    given = raw([3, 2])
    (tmp_path / "mine").mkdir()
    for name, array in {**given, "observations": np.asfortranarray(given["observations"])}.items():
        np.save(tmp_path / "mine" / f"{name}.npy", array)  # doubles, column by column
    same(replace(load(tmp_path / "mine"), about=About()), replace(trajectories(**given), about=About()))
    with pytest.raises(LegatoError, match=r"step 0 of episode 1 are not finite"):
        given["observations"][3] = np.nan
        np.save(tmp_path / "mine" / "observations.npy", given["observations"])
        load(tmp_path / "mine")


def test_folders_that_are_no_trajectories(tmp_path: Path) -> None:
    for name in ("cut", "lacking", "pickled", "zipped"):
        save(trajectories(**raw([3, 2])), tmp_path / f"{name}.arrays")
    rewards = tmp_path / "cut.arrays" / "rewards.npy"
    rewards.write_bytes(rewards.read_bytes()[:-4])
    (tmp_path / "lacking.arrays" / "actions.npy").unlink()
    np.save(tmp_path / "pickled.arrays" / "rewards.npy", np.array([{}], object))
    with (tmp_path / "zipped.arrays" / "rewards.npy").open("wb") as file:
        np.savez(file, rewards=np.zeros(5))
    for name, words in (
        ("none", "there is no folder '.*none.arrays'"),
        ("cut", "rewards.npy' cannot be read, it is cut or no plain array"),
        ("lacking", "has no actions; it holds high, low, observations, offsets"),
        ("pickled", "rewards.npy' cannot be read, it is cut or no plain array"),
        ("zipped", "rewards.npy' cannot be read, it is cut or no plain array"),
    ):
        with pytest.raises(LegatoError, match=words) as refused:
            load(tmp_path / f"{name}.arrays")
        assert "\n" not in str(refused.value)


def test_a_disk_without_room_for_an_hdf5_file_is_found_out_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would crash on it, and take the process along."""

    def full(file: int, begin: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(LegatoError, match=r"could not be written: .*No space left on device"):
        save(swings(), tmp_path / "logs.hdf5")
    assert not list(tmp_path.iterdir())
