"""`legato collect`, as a person types it: what is written is what was played, or what a run kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tests.cli.test_cli import contents, stop
from tests.data.test_trajectories import same
from tests.tiny import DECISIONS, untrained

import legato
from legato import api
from legato.cli import main
from legato.data.formats import load
from legato.data.replay import pack
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.evaluation import collect as collecting
from legato.rollout import episode_seed
from legato.training import online
from legato.training.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of policies with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    untrained("srl", folder / "srl", seed=2, seeds=2)
    untrained("sac", folder / "decisions", **DECISIONS)
    shutil.copytree(folder / "srl" / "policy" / "seed-3" / "best", folder / "nameless")
    card = json.loads((folder / "nameless" / "policy.json").read_text())
    del card["environment"], card["digests"]
    (folder / "nameless" / "policy.json").write_text(json.dumps(card))
    return folder


def collected(line: str, capsys: pytest.CaptureFixture[str]) -> Trajectories:
    """The dataset that a command wrote to `logs.npz`, which is removed."""
    main(["collect", *line.split(), "--out", "logs.npz", "--quiet"])
    data = load("logs.npz")
    shown = f"logs.npz: {len(data)} episode{'s' * (len(data) > 1)}, {data.steps} step{'s' * (data.steps > 1)}\n"
    assert capsys.readouterr() == (shown, "")
    Path("logs.npz").unlink()
    return data


def played(data: Trajectories, episode: int, seed: int) -> None:
    """The stored actions, played again from an episode's seed, lead through what is stored."""
    environment, at = gymnasium.make("Pendulum-v1"), data.episode(episode)
    seen, rewards = [environment.reset(seed=seed)[0]], []
    for action in data.actions[at]:
        observation, reward, *_ = environment.step(action)
        seen.append(observation)
        rewards.append(reward)
    np.testing.assert_array_equal(
        [*data.observations[at], data.final_observations[episode]], np.array(seen, np.float32)
    )
    np.testing.assert_array_equal(data.rewards[at], np.array(rewards, np.float32))


def test_exactly_so_many_steps_are_played_and_kept(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = collected(f"{runs}/srl --steps 425 --environments 2 --seed 7", capsys)
    np.testing.assert_array_equal(data.lengths, [200, 13, 200, 12])  # 213 steps of one, 212 of the other
    np.testing.assert_array_equal(np.flatnonzero(data.truncations), data.offsets[1:] - 1)
    assert not data.terminations.any()
    for episode, number in enumerate((0, 2, 1, 3)):
        played(data, episode, episode_seed(7, "collect", number))
    assert (data.about.environment, data.about.low, data.about.high) == ("Pendulum-v1", (-2.0,), (2.0,))
    assert data.about.reference is None


def test_equal_seeds_give_equal_episodes(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{runs}/srl --steps 30"
    first = collected(line, capsys)
    same(collected(line, capsys), first)
    # a draw, not the policy's best; another episode and other draws; another policy
    for other in ("--greedy", "--seed 1", "--run-seed 3", "--random", "--every 1"):
        assert not np.array_equal(collected(f"{line} {other}", capsys).actions, first.actions), other
    assert len(np.unique(first.actions)) == 30


@pytest.mark.parametrize(("option", "every"), [("", 4), ("--every 3", 3)])  # by default as in training
def test_a_greedy_policy_does_what_it_would_in_a_control_loop(
    option: str, every: int, runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = collected(f"{runs}/srl --steps 11 --greedy --run-seed 3 {option}", capsys)
    policy = legato.load(runs / "srl", 3)
    memory, actions = policy.begin(), []
    for t in range(0, 11, every):
        plan, memory = policy.act(memory, data.observations[t], every)
        actions.extend(plan)
    np.testing.assert_allclose(data.actions, np.array(actions)[:11], rtol=1e-4, atol=1e-5)


def test_random_actions_are_spread_over_their_bounds(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = collected(f"{runs}/srl --steps 400 --random", capsys).actions
    counts = np.histogram(actions, bins=4, range=(-2, 2))[0]
    assert counts.min() > 60  # of 100
    assert len(np.unique(actions)) > 390


def test_a_policy_folder_and_another_environment(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = collected(f"{runs}/srl --run-seed 3 --which best --steps 8", capsys)
    same(collected(f"{runs}/srl/policy/seed-3/best --steps 8", capsys), named)
    same(collected(f"{runs}/nameless --steps 8 --env Pendulum-v1", capsys), named)


def test_python_gets_the_episodes_with_or_without_a_file(runs: Path, here: Path) -> None:
    data = api.collect(runs / "srl", 8, quiet=True)
    assert data.about.name == "SRL-4 on Pendulum-v1"
    assert list(here.iterdir()) == []
    written = api.collect(runs / "srl", 8, here / "logs.arrays", quiet=True)
    np.testing.assert_array_equal(load(here / "logs.arrays").actions, written.actions)
    np.testing.assert_array_equal(data.actions, written.actions)


def test_a_target_that_is_taken_is_refused_before_anything_is_played(
    runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken.npz").write_text("precious")
    for module, name in ((collecting, "load"), (collecting, "Rollout"), (online, "load_replay")):
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("it was begun"))
    for options in ({"steps": 9}, {"replay": True}):
        with pytest.raises(LegatoError, match=r"'taken.npz' exists and is not overwritten"):
            api.collect(runs / "srl", out="taken.npz", **options)


# --- the replay buffer ---


def test_a_trained_run_gives_its_newest_steps(
    trained: tuple[Path, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained[0])
    data = collected(f"{trained[0]} --replay", capsys)
    np.testing.assert_array_equal(data.lengths, [64])  # the capacity, of an episode of 200
    assert (data.truncations[-1], data.about.environment) == (True, "Pendulum-v1")
    environment = gymnasium.make("Pendulum-v1")
    environment.reset(seed=episode_seed(2, "train", 0))
    state: Any = environment.unwrapped
    for i in range(63):  # what the physics makes of the stored state and action is stored next
        cosine, sine, speed = data.observations[i].astype(float)
        state.state = np.array([np.arctan2(sine, cosine), speed])
        np.testing.assert_allclose(data.observations[i + 1], state.step(data.actions[i])[0], atol=1e-4)
    assert contents(trained[0]) == before


def test_each_seed_has_a_buffer_of_its_own(tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds, two environments each, 12 rows in a ring of 10: what lies where is known from the numbers."""
    run = untrained("srl", tmp_path / "run", seed=4, seeds=2, environments=2)
    rows = np.zeros((2, 10, 2 * 3 + 2 * 1 + 2), np.float32)
    for seed in range(2):
        for number in range(12):
            t, e = divmod(number, 2)
            seen, after = (np.array([seed, e, step], np.float32) for step in (t, t + 1))
            action = np.zeros(1, np.float32)
            alive = np.float32(t != 3)
            rows[seed, number % 10] = pack(seen, action, action, np.float32(number), after, np.asarray(alive))
    checkpoints = Checkpoints(run.path / "checkpoints")
    checkpoints.save(12, {"replay": {"rows": rows, "added": np.array([12, 12])}})
    checkpoints.close()
    for seed, option in enumerate(("", "--run-seed 5")):
        data = collected(f"{run.path} --replay {option}", capsys)
        np.testing.assert_array_equal(data.lengths, [3, 2, 3, 2])
        np.testing.assert_array_equal(data.rewards, [2, 4, 6, 8, 10, 3, 5, 7, 9, 11])
        np.testing.assert_array_equal(np.flatnonzero(data.terminations), [2, 7])
        np.testing.assert_array_equal(data.final_observations, [[seed, 0, 4], [seed, 0, 6], [seed, 1, 4], [seed, 1, 6]])


# --- what is refused ---

BAD = {
    "SRL": "how many primitive steps? collect needs steps, or replay to export a replay buffer",
    "SRL --steps 0": "--steps must be at least 1; 0 was given",
    "SRL --steps 9 --environments 0": "--environments must be at least 1; 0 was given",
    "SRL --steps 9 --seed -1": "--seed must be at least 0; -1 was given",
    "SRL --steps 9 --every 0": "a decision interval needs 1 <= low <= high; 0 was given",
    "SRL --steps 9 --greedy --random": "random actions are never greedy: leave out greedy or random",
    "SRL --steps 9 --run-seed 7": "'SRL' has no seed 7; it has 2, 3",
    "SRL --steps 9 --env Pendulm-v1": "unknown environment 'Pendulm-v1'; did you mean 'Pendulum-v1'?",
    "SRL --steps 9 --env MountainCarContinuous-v0": "'MountainCarContinuous-v0' has 2 observed numbers and actions "
    "from -1 to 1; the policy in 'SRL' was trained with 3 observed numbers and actions from -2 to 2",
    "SRL --steps 9 --out taken.npz": "'taken.npz' exists and is not overwritten",
    "SRL --steps 9 --out taken.arrays": "'taken.arrays' exists and is not overwritten",
    "SRL --steps 9 --out logs.csv": "'logs.csv' is no .npz or .hdf5 file, no .arrays folder and no Minari id",
    "NAMELESS --steps 9": "'NAMELESS' does not say which environment its policy is for: name it with env",
    "NAMELESS --steps 9 --run-seed 3": "'NAMELESS' is no run folder: which and run_seed pick one of a run's policies",
    "NAMELESS --steps 9 --which best": "'NAMELESS' is no run folder: which and run_seed pick one of a run's policies",
    "nowhere --steps 9": "'nowhere' is not a saved policy: it has no policy.json",
    "nowhere --replay": "'nowhere' is not a run folder: it has no config.json",
    "NAMELESS --replay": "'NAMELESS' is not a run folder: it has no config.json",
    "SRL --replay": "'SRL/checkpoints' holds no checkpoint: the run ended before its first one",
    "SRL --replay --run-seed 7": "'SRL' has no seed 7; it has 2, 3",
    "SRL --replay --steps 9 --random": "replay exports what the buffer holds and plays nothing: leave out steps, ran",
    "DECISIONS --replay": "'DECISIONS' kept one row per decision (updates decision), not the steps between: play its",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_changes_nothing(
    line: str, runs: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args, words = line.split(), BAD[line]
    for name in ("SRL", "NAMELESS", "DECISIONS"):
        args = [str(runs / name.lower()) if arg == name else arg for arg in args]
        words = words.replace(f"'{name}", f"'{runs / name.lower()}")
    Path("taken.npz").write_text("precious")
    Path("taken.arrays").mkdir()
    before = contents(here, runs)
    code, out, err = stop(["collect", *args, *([] if "--out" in args else ["--out", "logs.npz"]), "--quiet"], capfd)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {words}")
    assert contents(here, runs) == before
