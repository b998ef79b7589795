"""`legato.play`: the test episodes of a run's policy, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from tests.tiny import untrained

import legato
from legato.envs import SpaceTime
from legato.errors import LegatoError
from legato.evaluation.episodes import PlayedEpisode, play_episode
from legato.evaluation.play import PlayReport
from legato.rollout import Clock
from legato.training.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained("srl", tmp_path_factory.mktemp("play") / "run", seed=2, seeds=2, max_episode_steps=20)


def test_it_is_the_test_episode_of_its_number_seed_and_clock(run: Run) -> None:
    for options, seed, clock in (({}, 2, Clock(4)), ({"seed": 3, "every": 6, "delay": 1}, 3, Clock(6, 1))):
        policy = legato.load(run.path, seed)
        for number in (0, 2):
            report = legato.play(run, episode=number, **options)
            assert report.episodes == (
                play_episode(policy.policy, run.environment_config, run.spec, clock, seed, number),
            )
            assert (report.mean_return, report.steps) == (report.episodes[0].episode_return, 20)
    assert report.decisions == 4  # at steps 0, 6, 12 and 18
    assert (report.label, report.environment) == ("SRL-4", "Pendulum-v1 (max_episode_steps=20)")
    assert (report.target, report.out) == (None, None)


def test_a_run_a_path_and_another_environment(run: Run) -> None:
    assert legato.play(str(run.path)) == legato.play(run)
    longer = legato.play(run, env_options={"g": 5.0}, max_episode_steps=30)
    assert (longer.steps, longer.environment) == (30, "Pendulum-v1 (g=5.0, max_episode_steps=30)")


class Pictured(PendulumEnv):
    """A pendulum whose picture is of what it was seen to do."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[np.ndarray] = []

    def reset(self, **kwargs: Any) -> Any:
        self.rows = [super().reset(**kwargs)[0]]
        return self.rows[0], {}

    def step(self, action: Any) -> Any:
        found = super().step(action)
        self.rows.append(found[0])
        return found

    def picture(self) -> SpaceTime:
        assert len(self.rows) == 21
        return SpaceTime(np.array(self.rows), np.zeros((20, 1)), 1.0, self.dt, 20)


def test_an_environment_with_a_picture_is_drawn(run: Run, tmp_path: Path) -> None:
    plain, drawn = (legato.play(run, out, env=Pictured, max_episode_steps=20) for out in (None, tmp_path / "a.png"))
    assert drawn.episodes == plain.episodes == legato.play(run).episodes
    assert drawn.out == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(LegatoError, match=r"'.*a.png' exists and is not overwritten"):
        legato.play(run, tmp_path / "a.png", env=Pictured, max_episode_steps=20)
    with pytest.raises(LegatoError, match=r"a film ends in .mp4 or .gif, a drawing in"):
        legato.play(run, tmp_path / "a.txt", env=Pictured, max_episode_steps=20)


def test_several_episodes_are_summed_up() -> None:
    report = PlayReport("A", "B", (PlayedEpisode(2.0, 10, 5), PlayedEpisode(4.0, 30, 7)))
    assert (report.mean_return, report.steps, report.decisions) == (3.0, 40, 12)
    assert np.isscalar(report.mean_return)


def test_what_does_not_fit_is_refused(run: Run, tmp_path: Path) -> None:
    for options, words in (
        ({"target": 3.0}, "read no target return: leave out target"),
        ({"goal": (1.0, 2.0)}, "are told no goal: leave out goal"),
        ({"episode": -1}, "episodes are numbered from 0; -1 was given"),
        ({"episodes": 2}, "'Pendulum-v1' has no goals to walk to"),
        ({"episodes": 0}, "at least one episode is played; 0 was given"),
        ({"seed": 9}, "has no seed 9; it has 2, 3"),
        ({"env": "MountainCarContinuous-v0"}, "was trained with 3 observed numbers"),
        ({"out": tmp_path / "a.txt"}, "a film ends in .mp4 or .gif, a drawing in"),
    ):
        with pytest.raises(LegatoError, match=words):
            legato.play(run, **options)
    assert not list(tmp_path.iterdir())
