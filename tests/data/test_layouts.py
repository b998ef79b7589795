"""Known episodes written as others write them, and read back as they were, or refused with what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from legato.data import formats, importing
from legato.data.tables import Columns
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError

LENGTHS = (4, 3, 5)
TERMINATED = (False, True, False)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
STEPS = int(OFFSETS[-1])
LAST = OFFSETS[1:] - 1
RNG = np.random.default_rng(0)
OBSERVATIONS, ACTIONS = RNG.normal(size=(STEPS, 3)), RNG.uniform(-1, 1, (STEPS, 2))
REWARDS, FINAL = RNG.normal(size=STEPS), RNG.normal(size=(3, 3))


def marks(at: np.ndarray) -> np.ndarray:
    flags = np.zeros(STEPS, bool)
    flags[at] = True
    return flags


TERMINAL, CUT, OVER = marks(LAST[1:2]), marks(LAST[[0, 2]]), marks(LAST)
NEXT = np.vstack([OBSERVATIONS[1:], FINAL[2:]])
NEXT[LAST] = FINAL
RESET = np.vstack([OBSERVATIONS[1:], FINAL[2:]])  # recorded after the environment was reset
OURS = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS}


def hdf5(path: Path, arrays: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value)


def npz(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def by_episode(array: np.ndarray) -> list[np.ndarray]:
    return [array[a:b] for a, b in itertools.pairwise(OFFSETS)]


def d3rlpy() -> dict[str, Any]:
    columns = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS[:, None]}
    found = {f"{name}_{i}": part for name, whole in columns.items() for i, part in enumerate(by_episode(whole))}
    found |= {f"terminated_{i}": flag for i, flag in enumerate(TERMINATED)}
    return found | {"columns": [*columns, "terminated"], "num_episodes": 3, "version": "2.1"}


def robomimic() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, (seen, after, acted, paid) in enumerate(
        zip(*map(by_episode, (OBSERVATIONS, NEXT, ACTIONS, REWARDS)), strict=True)
    ):
        found |= {f"data/demo_{i}/obs/arm": seen[:, :1], f"data/demo_{i}/obs/hand": seen[:, 1:]}
        found |= {f"data/demo_{i}/next_obs/arm": after[:, :1], f"data/demo_{i}/next_obs/hand": after[:, 1:]}
        found |= {f"data/demo_{i}/actions": acted, f"data/demo_{i}/rewards": paid, f"data/demo_{i}/dones": paid > 9}
    return found


def with_last(observations: np.ndarray) -> np.ndarray:
    return np.concatenate([np.vstack([o, e]) for o, e in zip(by_episode(observations), FINAL, strict=True)])


def ogbench() -> dict[str, Any]:
    void = np.concatenate([np.vstack([a, a[-1:]]) for a in by_episode(ACTIONS)])
    ends = np.concatenate([np.append(np.zeros(n), 1) for n in LENGTHS])
    return {"observations": with_last(OBSERVATIONS), "actions": void, "terminals": ends, "qpos": void}


def side_by_side() -> dict[str, Any]:
    """The first two episodes in one environment, the third, repeated and cut, in another."""
    other = np.array([7, 8, 9, 10, 11, 7, 8])
    pairs = {name: np.stack([array[:7], array[other]], axis=1) for name, array in OURS.items()}
    over = np.stack([OVER[:7], OVER[other]], axis=1)
    after = np.stack([NEXT[:7], NEXT[other]], axis=1)
    return {
        **pairs,
        "dones": over,
        "timeouts": over & ~np.stack([TERMINAL[:7], TERMINAL[other]], axis=1),
        "next_observations": after,
    }


SHORT = {"obs": OBSERVATIONS, "acts": ACTIONS}
# What is written, how, what the user has to say, and whether the observations after last steps, and causes, are known.
LAYOUTS: dict[str, tuple[Callable[..., None], dict[str, Any], dict[str, Any], str]] = {
    "d3rlpy 1": (hdf5, {**OURS, "terminals": TERMINAL, "episode_terminals": OVER, "discrete_action": False}, {}, ""),
    "d3rlpy 2": (hdf5, d3rlpy(), {}, ""),
    "robomimic": (hdf5, robomimic(), {"columns": Columns(("arm", "hand"))}, "ends, cut"),
    "stable-baselines3": (npz, {**OURS, "next_observations": NEXT, "dones": OVER, "timeouts": CUT}, {}, "ends"),
    "stable-baselines 2": (
        npz,
        {"obs": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS, "episode_starts": np.roll(OVER, 1)},
        {},
        "cut",
    ),
    "imitation": (
        npz,
        {
            "obs": with_last(OBSERVATIONS),
            "acts": ACTIONS,
            "rews": REWARDS,
            "indices": OFFSETS[1:-1],
            "terminal": TERMINATED,
        },
        {},
        "ends",
    ),
    "imitation, transitions": (
        npz,
        {**SHORT, "rews": REWARDS, "next_obs": NEXT, "dones": OVER},
        {"ends": "truncated"},
        "ends, cut",
    ),
    "neorl": (
        npz,
        {"obs": OBSERVATIONS, "action": ACTIONS, "reward": REWARDS[:, None], "index": OFFSETS[:-1]},
        {},
        "cut",
    ),
    "neorl 2": (
        npz,
        {
            "obs": OBSERVATIONS,
            "action": ACTIONS,
            "next_obs": NEXT,
            "reward": REWARDS,
            "done": TERMINAL,
            "truncated": CUT,
        },
        {},
        "ends",
    ),
    "ogbench": (npz, ogbench(), {"layout": "ogbench"}, "ends, cut, free"),
    "flags late": (
        npz,
        {**OURS, "next_observations": NEXT, "terminals": np.roll(TERMINAL, 1), "timeouts": np.append(False, CUT[:-1])},
        {"late_ends": True},
        "ends",
    ),
    "no marks": (
        npz,
        {name: array[:7] for name, array in OURS.items()},
        {"columns": Columns(episode_length=4)},
        "7, cut",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_episodes_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    write, arrays, told, known = LAYOUTS[name]
    path = tmp_path / ("logs.hdf5" if write is hdf5 else "logs.npz")
    write(path, arrays)
    data, said = importing.read(path, **told)
    steps = 7 if "7" in known else STEPS
    np.testing.assert_array_equal(data.offsets, OFFSETS[steps >= OFFSETS])
    np.testing.assert_array_equal(data.observations, OBSERVATIONS[:steps].astype(np.float32))
    np.testing.assert_array_equal(data.actions, ACTIONS[:steps].astype(np.float32))
    if "free" not in known:
        assert data.rewards is not None
        np.testing.assert_array_equal(data.rewards, REWARDS[:steps].astype(np.float32))
    terminal = np.zeros(steps, bool) if "cut" in known else TERMINAL[:steps]
    np.testing.assert_array_equal(data.terminations, terminal)
    np.testing.assert_array_equal(data.truncations, OVER[:steps] & ~terminal)
    assert (data.final_observations is not None) == ("ends" in known)
    if data.final_observations is not None:
        np.testing.assert_array_equal(data.final_observations, FINAL.astype(np.float32))
    assert said


@pytest.mark.parametrize(
    "name", ["d3rlpy 1", "d3rlpy 2", "robomimic", "stable-baselines3", "imitation", "neorl", "neorl 2"]
)
def test_training_refuses_names_that_are_not_ours_and_says_who_reads_them(name: str, tmp_path: Path) -> None:
    write, arrays, *_ = LAYOUTS[name]
    path = tmp_path / ("logs.hdf5" if write is hdf5 else "logs.npz")
    write(path, arrays)
    with pytest.raises(LegatoError, match="legato data import"):
        formats.load(path)


def test_marks_that_come_a_row_late_are_refused(tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", LAYOUTS["flags late"][1])
    with pytest.raises(LegatoError, match="marks ends one row late"):
        formats.load(tmp_path / "logs.npz")


def test_a_recorder_that_reset_before_it_looked_does_not_know_last_observations(tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", {**OURS, "next_observations": RESET, "dones": OVER, "timeouts": OVER})
    with pytest.warns(UserWarning, match="hold the next episode's first observation"):
        data, _ = importing.read(tmp_path / "logs.npz")
    assert data.final_observations is None and len(data) == 3


def test_environments_side_by_side_are_read_one_after_the_other(tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", side_by_side())
    data, said = importing.read(tmp_path / "logs.npz")
    np.testing.assert_array_equal(data.offsets, [0, 4, 7, 12, 14])
    np.testing.assert_array_equal(data.observations[:7], OBSERVATIONS[:7].astype(np.float32))
    np.testing.assert_array_equal(data.observations[7:12], OBSERVATIONS[7:].astype(np.float32))
    np.testing.assert_array_equal(np.flatnonzero(data.terminations), [6])
    assert any("2 environments side by side" in sentence for sentence in said)


def test_what_was_not_read_is_named(tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", {**OURS, "terminals": TERMINAL, "timeouts": CUT, "speed": REWARDS})
    with pytest.warns(UserWarning, match="not read: speed"):
        formats.load(tmp_path / "logs.npz")
    assert importing.read(tmp_path / "logs.npz")[1][-1] == "not used: speed"


def test_states_of_ogbench_are_not_taken_for_terminations(tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", ogbench())
    for read in (formats.load, importing.read):
        with pytest.raises(LegatoError, match=r"looks like OGBench's.*`layout=ogbench`"):
            read(tmp_path / "logs.npz")


def broken_d3rlpy(**changes: Any) -> dict[str, Any]:
    found = d3rlpy() | changes
    return {name: value for name, value in found.items() if value is not None}


HOSTILE: dict[str, dict[str, Any]] = {
    "count in a group": broken_d3rlpy(**{"num_episodes": None, "num_episodes/x": 3}),
    "episode in a group": broken_d3rlpy(**{"actions_1": None, "actions_1/x": 3}),
    "widths differ": broken_d3rlpy(observations_1=np.zeros((3, 7))),
    "no end": broken_d3rlpy(terminated_1=np.zeros(0)),
    "next ones too few": {**robomimic(), "data/demo_2/next_obs/arm": np.zeros((1, 1))},
    "a number": {**robomimic(), "data/demo_1/actions": 3.0},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_arrays_that_do_not_fit_together_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    hdf5(tmp_path / "logs.hdf5", HOSTILE[name])
    columns = Columns(("arm",)) if "data/demo_0/actions" in HOSTILE[name] else None
    with pytest.raises(LegatoError) as problem:
        importing.read(tmp_path / "logs.hdf5", columns)
    assert "\n" not in str(problem.value) and "logs" in str(problem.value)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"columns": Columns(("x",))}, "keeps its observations in one array"),
        ({"columns": Columns(missing="drop")}, "missing is of tables"),
    ],
)
def test_what_would_be_passed_over_is_refused(told: dict[str, Any], words: str, tmp_path: Path) -> None:
    npz(tmp_path / "logs.npz", {**OURS, "dones": OVER})
    with pytest.raises(LegatoError, match=words):
        importing.read(tmp_path / "logs.npz", **told)
    formats.save(importing.read(tmp_path / "logs.npz")[0], tmp_path / "logs.arrays")
    with pytest.raises(LegatoError, match=r"low, ends: of .npz and .hdf5 files only"):
        importing.read(tmp_path / "logs.arrays", Columns(low=(0.0,), high=(1.0,)), ends="truncated")


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "two names": ({**OURS, "obs": OBSERVATIONS, "dones": OVER}, {}, "has both 'observations' and 'obs'"),
    "no names": ({"x": OBSERVATIONS, "u": ACTIONS}, {}, "has no observations .* and no actions .*; it holds u, x"),
    "no ends": (dict(OURS), {}, "does not say where episodes end"),
    "marked twice": ({**OURS, "dones": OVER, "done": OVER}, {}, "has both 'dones' and 'done'"),
    "counted flags": ({**OURS, "dones": np.arange(STEPS)}, {}, "'dones' marks steps by 0 and 1"),
    "short flags": ({**OURS, "dones": OVER[:-1]}, {}, "has 12 observations and 11 of 'dones'"),
    "index falls": ({**OURS, "index": [0, 5, 3]}, {}, "'index' holds the rows at which episodes begin"),
    "columns": ({**OURS, "dones": OVER}, {"columns": Columns(reward="r")}, "reward name columns of a table"),
    "clipped to nothing": ({**OURS, "actions": 3 * ACTIONS, "dones": OVER}, {"clip_actions": True}, "nothing to clip"),
    "states": ({**OURS, "terminals": np.zeros(STEPS)}, {"layout": "ogbench"}, "the last of its 12 rows is not marked"),
    "split wrong": (
        {"obs": OBSERVATIONS, "acts": ACTIONS, "indices": OFFSETS[1:-1], "terminal": TERMINATED},
        {},
        "has 12 observations for 12 actions in 3 episodes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    arrays, told, words = BAD[name]
    npz(tmp_path / "logs.npz", arrays)
    with pytest.raises(LegatoError, match=words) as problem:
        importing.read(tmp_path / "logs.npz", **told)
    assert "\n" not in str(problem.value)


def test_marks_that_cannot_be_read_may_be_left_out(tmp_path: Path) -> None:
    starts = np.array([bool(flag) for flag in OVER], object)
    np.savez(tmp_path / "logs.npz", **OURS, episode_starts=starts)
    with pytest.raises(LegatoError, match="'episode_starts' is cut or no plain array: it holds objects"):
        importing.read(tmp_path / "logs.npz")
    data, said = importing.read(tmp_path / "logs.npz", Columns(episode_length=6))
    np.testing.assert_array_equal(data.offsets, [0, 6, 12])
    assert "what marks ends is not read: episode_starts" in said


def test_robomimic_needs_to_know_which_observations(tmp_path: Path) -> None:
    hdf5(tmp_path / "logs.hdf5", robomimic())
    for columns, words in (
        (None, "give `observations` some of: arm, hand"),
        (Columns(("leg",)), "no observation 'leg'"),
    ):
        with pytest.raises(LegatoError, match=words):
            importing.read(tmp_path / "logs.hdf5", columns)
    data: Trajectories = importing.read(tmp_path / "logs.hdf5", Columns(("hand",)))[0]
    np.testing.assert_array_equal(data.observations, OBSERVATIONS[:, 1:].astype(np.float32))


LONG = {"observations": np.arange(400.0)[:, None], "actions": np.zeros((400, 1)), "rewards": np.zeros(400)}


@pytest.mark.parametrize("environment", [None, "Pendulum-v1"])
def test_time_limits_that_are_marked_as_terminations_are_warned_of(environment: str | None, tmp_path: Path) -> None:
    ends = {"terminals": np.arange(400) % 200 == 199}
    ends |= {"environment": np.array(environment)} if environment else {}
    npz(tmp_path / "logs.npz", {**LONG, **ends})
    with pytest.warns(UserWarning, match=r"2 (of 2 )?episodes terminate after 200 steps.*`ends=truncated`"):
        formats.load(tmp_path / "logs.npz")
    data, _ = importing.read(tmp_path / "logs.npz", ends="truncated")
    assert data.truncations.sum() == 2 and not data.terminations.any()
