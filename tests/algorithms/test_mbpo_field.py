"""MBPO with the model of a periodic field: it runs, and says where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.conformance.cases import ctrl_c_after
from tests.runs import rows, same_end, saved

from legato import api
from legato.algorithms import entry
from legato.algorithms.entry import Task
from legato.algorithms.mbpo import imagination, mbpo
from legato.algorithms.mbpo.imagination import Rows
from legato.algorithms.model_planner import ModelPlanner
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig
from legato.envs.tasks.pde import BURGERS, KURAMOTO_SIVASHINSKY
from legato.errors import LegatoError
from legato.models.recurrent_ensemble import RecurrentEnsemble
from legato.policy import LastStep
from legato.training.policy_file import newest_learner
from legato.training.run import Run

PLANT: dict[str, Any] = {"N": 16, "L": 14.0, "sigma": 1.0, "jets": 2, "horizon": 20}
SMALL: dict[str, Any] = {"model": "circulant", "reward": "known", "members": 2, "elites": 1, "model_channels": (2,)}
SMALL |= {"hidden": 8, "batch_size": 8, "first_fit": 20, "refit_every": 20, "rollouts": 8, "rollout_length": (2, 2)}
SMALL |= {"fit_epoch": 5, "fit_most": 5, "model_batch_size": 8}


def test_a_field_s_model_is_fitted_and_imagined_in(tmp_path: Path) -> None:
    run = api.train(
        "mbpo", env=KURAMOTO_SIVASHINSKY, env_options=PLANT, out=tmp_path / "run", seeds=1, steps=60, start_steps=20,
        eval_every=60, log_every=60, checkpoint_every=60, eval_episodes=1, quiet=True, **SMALL,
    )  # fmt: skip
    last = rows(run.path)[-1]
    assert float(last["refits"]) == 1.5 and float(last["imagined_steps"]) == 2  # means of the updates' rows
    assert np.isfinite(float(last["return"])) and float(last["imagined_reward"]) <= 0  # known: -<u^2>


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (KURAMOTO_SIVASHINSKY, {**PLANT, "sensors": 8}, "observed at all its points.*`model=mlp`"),
        (KURAMOTO_SIVASHINSKY, {**PLANT, "sensor_noise": 0.1}, "without noise.*`model=mlp`"),
        ("Pendulum-v1", {}, "'Pendulum-v1' is no periodic field"),
    ],
)
def test_other_plants_are_refused(environment: str, options: dict[str, Any], message: str) -> None:
    config = mbpo.Config(model="circulant", reward="learned")
    with pytest.raises(LegatoError, match=message):
        mbpo.for_environment(config, Spec(3, (-1.0,), (1.0,)), EnvironmentConfig(environment, options))


@pytest.mark.parametrize("model", ["circulant", "convlstm"])
def test_a_field_s_model_has_no_reward(model: Any) -> None:
    with pytest.raises(LegatoError, match=f"`model={model}` predicts no rewards: take `reward=known`"):
        field = EnvironmentConfig(KURAMOTO_SIVASHINSKY, PLANT)
        mbpo.for_environment(mbpo.Config(model=model), Spec(16, (-1.0,) * 2, (1.0,) * 2), field)
    with pytest.raises(LegatoError, match=f"`model={model}` needs a `known_from`"):
        mbpo.init(mbpo.Config(model=model), Spec(16, (-1.0,), (1.0,)), jax.random.key(0))


# --- with a memory ---

RECURRENT = {**SMALL, "model": "convlstm", "members": 2, "elites": 2, "held_out": 0.5}
"""of stretches of 20 steps; two environments make two in 40"""
RECURRENT |= {"first_fit": 40, "refit_every": 40, "rollout_length": (1, 2), "rollout_growth": (40, 80)}


def train_recurrent(out: Path) -> Run:
    return api.train(
        "mbpo", env=KURAMOTO_SIVASHINSKY, env_options=PLANT, out=out, seeds=1, environments=2, steps=100,
        start_steps=40, eval_every=100, log_every=20, checkpoint_every=50, eval_episodes=1, quiet=True, **RECURRENT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a convolutional LSTM. Read only."""
    return train_recurrent(tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_with_a_recurrent_model_ends_as_one_that_was_stopped(recurrent: Run, tmp_path: Path) -> None:
    """Between its two fits."""
    last = rows(recurrent)[-1]
    assert float(last["refits"]) == 2 and float(last["imagined_steps"]) == 2
    assert np.isfinite(float(last["eval_return"])) and 0 < float(last["model_error"]) < 10
    with ctrl_c_after(60), pytest.raises(KeyboardInterrupt, match="stopped at"):
        train_recurrent(tmp_path / "run")
    assert saved(tmp_path / "run")[-1] == 60
    api.train(resume=tmp_path / "run", quiet=True)
    same_end(tmp_path / "run", recurrent.path)


def test_it_is_planned_in_from_the_newest_observation(recurrent: Run) -> None:
    """The first step of a plan is imagined as by the elites that saw nothing else, and the next one remembers it."""
    found = api.load(recurrent.path, search={"planner": "unrolled"}).policy
    assert isinstance(found, ModelPlanner)
    s = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32)
    plan = jax.jit(lambda policy: policy.decide(LastStep(s, jnp.zeros(2)), None, 3)[0])(found)
    assert plan.shape == (3, 2) and np.isfinite(plan).all()

    @jax.jit
    def imagined(model: Any) -> Any:
        """After one action, and after the next one: in a plan, and by who forgets."""
        one = model.step(model.encode(s), plan[0])
        means = [s + model.model.elite_means(s, plan[0]).mean(axis=0)]
        return one[0], means[0], model.step(one, plan[1])[0], model.step(model.encode(one[0]), plan[1])[0]

    first, expected, second, forgot = imagined(found.model)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert np.abs(second - forgot).max() > 1e-4


def test_roll_outs_begin_with_the_steps_before_them_in_mind(recurrent: Run) -> None:
    """What is imagined first is what the model says that was shown the window, drawn from its members."""
    learner = newest_learner(recurrent, 0)
    config, spec = recurrent.config, learner.sac.spec
    rng = np.random.default_rng(0)
    s = rng.normal(size=(41, 16)).astype(np.float32)
    a = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    real = Rows(*(jnp.asarray(part) for part in (s[:-1], a, np.zeros(40), s[1:], np.ones(40))), 40, 39)
    found = imagination.imagine(replace(config, recent_starts=1), learner, real, 0, jax.random.key(0))
    drawn = imagination.unpack(found.pool.rows[(int(learner.pool.added) + np.arange(8)) % len(found.pool.rows)], spec)
    np.testing.assert_array_equal(drawn.observation, np.tile(s[39], (8, 1)))
    many = (np.repeat(part[:, None], 8, axis=1) for part in (s[35:39], a[35:39], np.ones(4, np.float32), s[39:]))
    fields, actions, shown, newest = many
    memory = jax.jit(RecurrentEnsemble.warm_up)(learner.model.ensemble, fields, actions, shown, newest[0])
    changes = np.asarray(jax.jit(RecurrentEnsemble.advance)(learner.model.ensemble, memory, newest[0], drawn.action)[0])
    apart = np.abs(np.asarray(drawn.next_observation) - (s[39] + changes)).max(axis=-1)  # [members, rows]
    assert (apart.min(axis=0) < 1e-4).all() and set(apart.argmin(axis=0)) == {0, 1}


def test_a_grid_that_strides_do_not_divide_is_refused_before_the_run() -> None:
    with pytest.raises(LegatoError, match=r"halves the grid twice: a multiple of 4 points.*there are 150"):
        mbpo.check(mbpo.Config(model="convlstm", rollouts=8), Spec(150, (-1.0,) * 2, (1.0,) * 2), BURGERS)


@pytest.mark.parametrize("name", ["mbpo", "cmlo"])
def test_the_preset_of_the_plants_takes_the_model_of_a_field(name: str) -> None:
    found = entry(name).presets["cpu"](Task(KURAMOTO_SIVASHINSKY)).options
    assert (found["model"], found["reward"]) == ("circulant", "known")
    assert "model" not in entry(name).presets["cpu"](Task("Pendulum-v1")).options
