"""What an environment knows of itself is believed only where nothing changes it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

from legato.envs import EnvironmentConfig, make, make_vec, tasks
from legato.envs.known import unchanged
from legato.errors import LegatoError


def told(*asked: Any, **options: Any) -> tuple[float, ...] | None:
    return make_vec(EnvironmentConfig(*asked, **options), 1).known_returns((1, 4))


def test_known_returns_are_those_of_the_environment_as_it_is_asked_for() -> None:
    quiet, noisy = tasks.LinearQuadratic(), tasks.LinearQuadratic(noise=1.0)
    assert told(tasks.LQR) == (quiet.known_return(1), quiet.known_return(4))
    assert told(tasks.LQR, {"noise": 1.0}) == (noisy.known_return(1), noisy.known_return(4))
    assert told(tasks.LQR, {"friction_after": 50}) is None
    assert told(tasks.LQR, {}, 50) is None  # a shorter episode
    assert told("Pendulum-v1") is None


def test_a_registered_limit_belongs_to_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = type(gymnasium.make("Pendulum-v1").unwrapped)
    monkeypatch.setattr(inner, "known_return", lambda self, steps: -100.0 * steps, raising=False)
    assert told("Pendulum-v1") == told("Pendulum-v1", {}, 200) == (-100.0, -400.0)
    assert told("Pendulum-v1", {}, 201) is None
    monkeypatch.setattr(inner, "known_return", lambda self, steps: None if steps > 1 else -100.0)
    assert told("Pendulum-v1") is None  # not at every length


@pytest.mark.parametrize(
    "change",
    [
        lambda environment: wrappers.TransformReward(environment, lambda reward: 2 * reward),
        lambda environment: wrappers.RescaleAction(environment, np.float32(-2.0), np.float32(2.0)),
        lambda environment: wrappers.FlattenObservation(environment),
    ],
)
def test_nothing_is_known_within_a_wrapper_that_may_change_it(change: Any) -> None:
    environment = gymnasium.make(tasks.LQR, max_episode_steps=7)
    assert unchanged(environment) is environment.unwrapped
    assert unchanged(make(tasks.LQR)) is not None
    assert unchanged(change(environment)) is None
    assert unchanged(wrappers.TimeLimit(change(environment), 5)) is None


@pytest.mark.parametrize("answer", [np.nan, np.inf, "much", ZeroDivisionError("no steps")])
def test_an_answer_that_is_no_return_is_refused(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def known_return(self: Any, steps: int) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(tasks.LinearQuadratic, "known_return", known_return)
    with pytest.raises(LegatoError, match="known_return of environment 'LinearQuadratic'"):
        told(tasks.LQR)
