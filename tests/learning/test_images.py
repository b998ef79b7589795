"""Images end to end: an environment that shows a dot, by acting and from logs, against policies that see nothing.

A dot's column is uniform, so that the best action that sees nothing, 0, is off by 0.65 in the root mean square: three
steps earn 1.7 of 3. Of three choices one that sees nothing finds a third or so.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tests.probes import SIDE, Dot

import legato
from legato.data import formats
from legato.data.frames import frames_kept
from legato.data.trajectories import About, Trajectories, from_episodes
from legato.envs import make_vec
from legato.errors import LegatoError
from legato.rollout import Clock, episodes, stack
from legato.training import online, policy_file
from legato.training.checkpoint import Checkpoints
from legato.training.run import Run

ACTING = {"hidden": 32, "batch_size": 64, "learning_rate": 3e-3, "anneal_over": 0, "gamma": 0.0, "quiet": True}
ACTING |= {"steps": 1200, "start_steps": 240, "environments": 8, "eval_every": 1200, "checkpoint_every": 800}
ACTING |= {"updates_per_step": 0.5, "eval_episodes": 2}


def logged(count: int) -> Trajectories:
    """Episodes of an expert who knows the column."""
    environment, found = Dot(), []
    for seed in range(count):
        seen, actions, rewards, over = [environment.reset(seed=seed)[0]], [], [], False
        while not over:
            action = np.array([environment.best()], np.float32)
            observation, reward, _, over, _ = environment.step(action)
            seen.append(observation)
            actions.append(action)
            rewards.append(reward)
        none = np.zeros(len(actions), bool)
        episode = {"observations": np.stack(seen), "actions": np.array(actions), "rewards": np.array(rewards)}
        found.append({**episode, "terminations": none, "truncations": none})
    return from_episodes(found, About("logs", "probe/Dot-v0"))


def greedy_return(run: Run, seed: int = 0) -> float:
    """Mean return of 40 test episodes."""
    policy = policy_file.load(run.policy_path(seed)).policy
    environments = make_vec(run.environment or "", 40)
    return float(episodes(stack([policy]), environments, run.spec, Clock(1), [0], "test").mean())


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return legato.train("sac", env="probe/Dot-v0", out=tmp_path_factory.mktemp("acted") / "run", **ACTING)


def test_sac_learns_from_images(acted: Run) -> None:
    assert (acted.spec.shape, acted.spec.dtype) == ((SIDE, SIDE, 1), "uint8")
    assert greedy_return(acted) > 2.7


def test_sac_learns_choices_from_images(tmp_path: Path) -> None:
    run = legato.train("sac", env="probe/DotChoice-v0", out=tmp_path / "run", **ACTING)
    assert greedy_return(run) > 2.7


def test_its_policy_reads_images_of_bytes_alone(acted: Run) -> None:
    policy = legato.load(acted.path)
    image = np.zeros((SIDE, SIDE, 1), np.uint8)
    action, _ = policy.act(policy.begin(), image)
    flat, _ = policy.act(policy.begin(), image.ravel())
    np.testing.assert_array_equal(action, flat)
    for wrong in (image.astype(np.float32), image[..., 0], np.zeros(SIDE * SIDE)):
        with pytest.raises(LegatoError, match=r"reads images of 8 x 8 x 1 bytes \(uint8\)"):
            policy.act(policy.begin(), wrong)


def test_none_and_text_are_no_images(acted: Run) -> None:
    policy = legato.load(acted.path)
    for wrong in (None, "image"):
        with pytest.raises(LegatoError, match="reads images of 8 x 8 x 1 bytes"):
            policy.act(policy.begin(), wrong)  # type: ignore[arg-type]


def test_a_turn_must_fit_twice_into_a_replay_of_images(tmp_path: Path) -> None:
    """As both images of each of its steps may be new."""
    options = {**ACTING, "capacity": 60, "environments": 31, "batch_size": 8}
    message = "capacity 60 is smaller than what a turn adds: 31 steps of two images each"
    with pytest.raises(LegatoError, match=message):
        legato.train("sac", env="probe/Dot-v0", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_held_decisions_and_several_seeds_read_images_too(tmp_path: Path) -> None:
    """A row for each decision; a run in which nothing is due ends and is evaluated."""
    options = {"steps": 48, "start_steps": 12, "batch_size": 8, "environments": 2, "seeds": 2, "eval_every": 48}
    options |= {"updates": "decision", "action_repeat": 3}
    run = legato.train("sac", env="probe/Dot-v0", out=tmp_path / "run", **{**ACTING, **options})
    assert np.isfinite([greedy_return(run, seed) for seed in run.seeds]).all()


def test_a_run_resumes_to_the_bit(acted: Run, tmp_path: Path) -> None:
    """From a checkpoint with a ring of images."""
    again = tmp_path / "again"
    shutil.copytree(acted.path, again)
    online.resume(again, from_step=800, quiet=True)
    assert (again / "metrics.csv").read_bytes() == (acted.path / "metrics.csv").read_bytes()
    ends = [Checkpoints(path / "checkpoints", create=False) for path in (again, acted.path)]
    jax.tree.map(np.testing.assert_array_equal, *(end.load()[1] for end in ends))
    for end in ends:
        end.close()


def test_its_replay_gives_the_images_back(acted: Run, tmp_path: Path) -> None:
    """As episodes of three steps, four images each, but for those that are cut; a set that bc learns from.

    The oldest images are gone: there is room for 1,200 and a sixteenth.
    """
    data = online.load_replay(acted)
    assert data.about.shape == (SIDE, SIDE, 1)
    assert data.observations.dtype == np.uint8
    assert (data.lengths == 3).mean() > 0.9
    assert 0.95 < data.steps / (0.75 * frames_kept(1200, 8)) < 1.05
    formats.save(data, tmp_path / "replay.npz")
    learnt = legato.train("bc", dataset=tmp_path / "replay.npz", out=tmp_path / "bc", updates=2, env="", quiet=True)
    assert learnt.spec.shape == (SIDE, SIDE, 1)


def test_bc_learns_from_images(tmp_path: Path) -> None:
    formats.save(logged(200), tmp_path / "logs.npz")
    options: dict[str, Any] = {"hidden": 64, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.0, "clip": 10.0}
    run = legato.train(
        "bc", dataset=tmp_path / "logs.npz", out=tmp_path / "run", updates=400, eval_every=400, quiet=True, **options
    )
    assert greedy_return(run) > 2.7
    assert policy_file.load(run.policy_path()).spec.images


def test_who_does_not_learn_from_images_says_who_does(tmp_path: Path) -> None:
    formats.save(logged(5), tmp_path / "logs.npz")
    with pytest.raises(LegatoError, match="holds images, of which 'dt' does not learn; bc does"):
        legato.train("dt", dataset=tmp_path / "logs.npz", out=tmp_path / "run")
