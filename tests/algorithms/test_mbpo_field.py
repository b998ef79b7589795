"""MBPO with the model of a periodic field: it runs, and says where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tests.runs import rows

from legato import api
from legato.algorithms import entry
from legato.algorithms.entry import Task
from legato.algorithms.mbpo import mbpo
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig
from legato.envs.tasks.pde import KURAMOTO_SIVASHINSKY
from legato.errors import LegatoError

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


def test_a_field_s_model_has_no_reward() -> None:
    with pytest.raises(LegatoError, match="predicts no rewards: take `reward=known`"):
        field = EnvironmentConfig(KURAMOTO_SIVASHINSKY, PLANT)
        mbpo.for_environment(mbpo.Config(model="circulant"), Spec(16, (-1.0,) * 2, (1.0,) * 2), field)
    with pytest.raises(LegatoError, match="needs a `known_from`"):
        mbpo.init(mbpo.Config(model="circulant"), Spec(16, (-1.0,), (1.0,)), jax.random.key(0))


@pytest.mark.parametrize("name", ["mbpo", "cmlo"])
def test_the_preset_of_the_plants_takes_the_model_of_a_field(name: str) -> None:
    found = entry(name).presets["cpu"](Task(KURAMOTO_SIVASHINSKY)).options
    assert (found["model"], found["reward"]) == ("circulant", "known")
    assert "model" not in entry(name).presets["cpu"](Task("Pendulum-v1")).options
