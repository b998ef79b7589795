"""Logged episodes that are not learnt from: errors against NumPy, and runs that hold some out."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.runs import same_end
from tests.tiny import learn, logs, swings

import legato
from legato.cli import main
from legato.data import formats, sets
from legato.data.spec import Spec
from legato.data.trajectories import About, trajectories
from legato.errors import LegatoError
from legato.policy import Policy, Step
from legato.rollout import stack
from legato.training import held_out, logged_data, offline

SPEC = Spec(2, (-1.0,), (3.0,))  # middle 1


class Linear(Policy[Any]):
    """Writes gain * o[0] + o[1] / 2 + a_{t-1} / 4 + r_{t-1} / 8, and 9 more at an episode's first step."""

    gain: Any

    def init_state(self, command: Any) -> Any:
        return jnp.zeros(()), jnp.asarray(0.0 if isinstance(command, tuple) else command, jnp.float32)

    def observe(self, state: Any, step: Step) -> Any:
        first = jnp.where(step.first, 9.0, 0.0)
        seen = self.gain * step.observation[0] + step.observation[1] / 2 + step.executed[0] / 4 + step.reward / 8
        return seen + first, state[1]

    def decide(self, state: Any, key: Any, length: int) -> Any:
        return jnp.full((length, 1), state[0] + state[1]), state


def data(lengths: tuple[int, ...] = (3, 5, 1), choices: int | None = None) -> Any:
    rng, steps = np.random.default_rng(1), sum(lengths)
    actions = rng.integers(0, choices, steps) if choices else rng.uniform(-1, 3, (steps, 1))
    about = About("noise", choices=choices) if choices else About("noise", low=(-1.0,), high=(3.0,))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    never = np.zeros(steps)
    return trajectories(
        rng.normal(size=(steps, 2)), actions, rng.normal(size=steps), never, never, offsets, about=about
    )


@pytest.mark.parametrize("conditioned", [False, True])
def test_predictions_read_what_was_logged_before(conditioned: bool) -> None:
    logged, gains = data(), (0.5, 2.0)
    policies = stack([Linear(jnp.asarray(gain)) for gain in gains])
    found = held_out.predict(policies, logged, SPEC, conditioned=conditioned)
    for gain, actions in zip(gains, found, strict=True):
        for i in range(len(logged)):
            at = logged.episode(i)
            executed = np.append(1.0, logged.actions[at][:-1, 0])
            paid = np.append(0.0, logged.rewards[at][:-1])
            seen = logged.observations[at]
            known = gain * seen[:, 0] + seen[:, 1] / 2 + executed / 4 + paid / 8
            known[0] += 9
            known += logged.rewards[at].sum() if conditioned else 0
            np.testing.assert_allclose(actions[at, 0], known, rtol=1e-5, atol=1e-5)


def test_errors_are_those_of_numpy() -> None:
    logged = data()
    policies = stack([Linear(jnp.asarray(0.5))])
    apart = held_out.predict(policies, logged, SPEC) - logged.actions
    error, holding, deviation = held_out.errors(policies, logged, SPEC)
    np.testing.assert_allclose(error, np.sqrt((apart**2).mean(axis=1)))
    np.testing.assert_allclose(deviation, logged.actions.std(axis=0, dtype=np.float64))
    steps = [logged.actions[logged.episode(i)][:, 0] for i in range(len(logged))]
    np.testing.assert_allclose(holding, np.sqrt(np.mean(np.concatenate([np.diff(a) for a in steps]) ** 2)), rtol=1e-6)
    np.testing.assert_allclose(held_out.shares(error, deviation), (error / deviation).mean(axis=1))


def test_of_discrete_actions_errors_are_the_share_that_differs() -> None:
    logged = data(choices=3)
    policies = stack([Chooser(jnp.asarray(1.0))])
    error, holding, deviation = held_out.errors(policies, logged, Spec.discrete(2, 3))
    np.testing.assert_allclose(error, [[(logged.actions != 1).mean()]])
    np.testing.assert_allclose(deviation, [1 - np.bincount(logged.actions).max() / logged.steps])
    assert 0 < holding[0] <= 1


class Chooser(Policy[Any]):
    """Always the same choice."""

    choice: Any

    def init_state(self, command: Any) -> Any:
        return ()

    def observe(self, state: Any, step: Step) -> Any:
        return state

    def decide(self, state: Any, key: Any, length: int) -> Any:
        return jnp.full((length, 1), self.choice), state


def test_more_episodes_than_are_led_together_keep_their_order() -> None:
    logged = data(tuple(1 + i % 4 for i in range(2 * held_out.TOGETHER + 3)))
    policies = stack([Linear(jnp.asarray(0.5))])
    whole = held_out.predict(policies, logged, SPEC)
    each = [held_out.predict(policies, sets.select(logged, [i]), SPEC) for i in range(len(logged))]
    np.testing.assert_allclose(whole, np.concatenate(each, axis=1), rtol=1e-6)


def test_a_number_that_never_changes_has_no_share() -> None:
    np.testing.assert_array_equal(held_out.shares(np.array([[2.0, 5.0]]), np.array([4.0, 0.0])), [0.5])
    np.testing.assert_array_equal(held_out.shares(np.array([[2.0]]), np.array([0.0])), [0.0])


# --- runs ---


def column(run: Any, name: str = "held_out_error") -> list[float]:
    with (run.path / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_a_run_holds_episodes_out_shows_their_error_and_resumes(tmp_path: Path) -> None:
    """Of policies that are told a return."""
    path = logs(tmp_path / "swings.npz")
    run = learn("dt", tmp_path / "run", path, holdout=0.25, seeds=2)
    whole = swings()
    learnt, held = logged_data.split_holdout(run.settings, whole)
    assert held is not None and len(held) == round(0.25 * len(whole)) and len(learnt) + len(held) == len(whole)
    assert logged_data.load_dataset(run).steps == learnt.steps
    formats.save(held, tmp_path / "held.npz")
    found = legato.action_errors(run, tmp_path / "held.npz")
    np.testing.assert_allclose(column(run)[-2:], held_out.shares(found.policy, found.deviation), rtol=1e-5)
    shutil.copytree(run.path, tmp_path / "back")
    offline.resume(tmp_path / "back", 300, quiet=True)
    same_end(tmp_path / "back", run.path)


def test_the_best_policy_without_an_environment_is_that_of_the_least_error(tmp_path: Path) -> None:
    run = learn("bc", tmp_path / "run", logs(tmp_path / "swings.npz"), holdout=0.25)
    errors = column(run)
    kept = legato.load(run.path, which="best").card.extra["step"]
    steps = [200 * (i + 1) for i in range(len(errors))]
    assert kept == steps[int(np.argmin(errors))]


def test_goals_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="leave holdout out"):
        learn("tt", tmp_path / "run", logs(tmp_path / "swings.npz"), holdout=0.25, goals="last", search="likelihood")
    assert not (tmp_path / "run").exists()


def test_data_of_other_sizes_or_kinds_is_refused() -> None:
    policies = stack([Linear(jnp.asarray(0.5))])
    with pytest.raises(LegatoError, match="one has discrete actions"):
        held_out.predict(policies, data(choices=3), SPEC)
    with pytest.raises(
        LegatoError, match="observations of 2 numbers and actions of 1; the policy reads 3 and writes 1"
    ):
        held_out.predict(policies, data(), Spec(3, (-1.0,), (3.0,)))


def test_the_command_shows_errors_beside_holding_and_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs(tmp_path / "swings.npz")
    run = learn("bc", tmp_path / "run", path, updates=50)
    main(["evaluate", str(run.path), "--dataset", path])
    shown = capsys.readouterr().out
    assert "held / deviation" in shown and "of the logged deviation" in shown
    assert not (run.path / "evaluation.json").exists()
