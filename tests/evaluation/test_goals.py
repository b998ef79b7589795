"""Episodes with a goal: the test episode of their number, from where and to where they are told."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from legato.data.spec import Spec
from legato.envs import make, tasks
from legato.errors import LegatoError
from legato.evaluation.goals import floor, play_goal_episode
from legato.policy import Policy, Step
from legato.rollout import Clock, episode_seed

SPEC = Spec(2, (-0.5, -0.5), (0.5, 0.5))


class Straight(Policy[Any]):
    """Walks straight to the place it is told, and does not know of walls; 99 is nowhere."""

    def init_state(self, command: Any) -> Any:
        if np.shape(command) != (2,):
            raise LegatoError("where to?")
        return jnp.asarray(command, jnp.float32), jnp.zeros(2)

    def observe(self, state: Any, step: Step) -> Any:
        return state[0], step.observation

    def decide(self, state: Any, key: Any, length: int) -> Any:
        return jnp.broadcast_to(jnp.clip(state[0] - state[1], -0.5, 0.5), (length, 2)), state


def test_it_is_the_test_episode_of_its_number() -> None:
    environment = make(tasks.FOUR_ROOMS)
    for number in (0, 3):
        seen, info = environment.reset(seed=episode_seed(5, "test", number))
        found = play_goal_episode(Straight(), tasks.FOUR_ROOMS, SPEC, Clock(1), 5, number)
        np.testing.assert_array_equal(found.places[0], seen)
        np.testing.assert_array_equal(found.goal, info["goal"])
        assert np.abs(np.diff(found.places, axis=0)).max() <= 0.5 + 1e-6
        assert found.arrived == (np.linalg.norm(found.places[-1] - found.goal) <= 0.5)
        assert found.steps == found.decisions == (found.steps if found.arrived else 100)


def test_start_and_goal_are_as_told() -> None:
    found = play_goal_episode(Straight(), tasks.FOUR_ROOMS, SPEC, Clock(2), 0, start=(1.0, 1.0), goal=(4.0, 2.0))
    np.testing.assert_array_equal(found.places[0], [1, 1])
    np.testing.assert_array_equal(found.goal, [4, 2])
    assert (found.arrived, found.steps, found.decisions) == (True, 5, 3)
    lost = play_goal_episode(
        Straight(), tasks.FOUR_ROOMS, SPEC, Clock(1), 0, start=(1.0, 1.0), goal=(5.0, 9.0)
    )  # behind a wall
    assert (lost.arrived, lost.steps) == (False, 100)
    elsewhere = play_goal_episode(
        Straight(), tasks.FOUR_ROOMS, SPEC, Clock(1), 0, start=(1.0, 1.0), goal=(1.0, 4.0), command=np.array([4.0, 1.0])
    )
    np.testing.assert_allclose(elsewhere.places[-1], [4, 1], atol=1e-5)
    assert not elsewhere.arrived


def test_what_cannot_be_walked_is_refused() -> None:
    def refused(
        words: str, policy: Policy[Any], name: str = tasks.FOUR_ROOMS, episode: int = 0, **options: Any
    ) -> None:
        with pytest.raises(LegatoError, match=f"^{words}"):
            play_goal_episode(policy, name, SPEC, Clock(1), 0, episode, **options)

    refused("'Pendulum-v1' has no goals to walk to$", Straight(), "Pendulum-v1", start=(1.0, 2.0))
    refused("episodes are numbered from 0; -1 was given$", Straight(), episode=-1)
    refused(r"goal \(9.0, 12.0\) of 'legato/FourRooms-v0' is no place", Straight(), goal=(9.0, 12.0))
    refused("where to?", Straight(), command=())


def test_a_world_that_does_not_take_goals_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = tasks.FourRooms.reset
    monkeypatch.setattr(tasks.FourRooms, "reset", lambda self, seed=None, options=None: reset(self, seed=seed))
    with pytest.raises(LegatoError, match=r"^'legato/FourRooms-v0' cannot be given a goal: leave it out$"):
        play_goal_episode(Straight(), tasks.FOUR_ROOMS, SPEC, Clock(1), 0, goal=(4.0, 2.0))


def test_the_floor_is_that_of_a_plane() -> None:
    plan = floor(tasks.FOUR_ROOMS)
    np.testing.assert_array_equal(plan.walls, tasks.FourRooms().walls)
    assert plan.reach == 0.5
    assert (len(floor("MountainCarContinuous-v0").walls), floor("MountainCarContinuous-v0").reach) == (0, 0)
    with pytest.raises(
        LegatoError, match=r"^'Pendulum-v1' observes no place in a plane, so there are no paths to draw$"
    ):
        floor("Pendulum-v1")
