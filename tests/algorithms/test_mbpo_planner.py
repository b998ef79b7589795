"""Plans in an ensemble: acting step by step in an exact model, what a sequence is worth, from a run's checkpoint.

The model is x' = x + 0.5 a, pays -x, and ends beyond 2; its members are lines by hand, of which two differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.conformance.cases import IMAGINING

from legato import api
from legato.algorithms.mbpo import imagination, mbpo
from legato.algorithms.mbpo.config import MBPO
from legato.algorithms.mbpo.imagination import Learner
from legato.algorithms.mbpo.planner import EnsembleModel, compose
from legato.algorithms.mbpo.units import Units
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.protocol import Parts
from legato.data.normaliser import Normaliser, none
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models.ensemble import Ensemble
from legato.models.environment_model import EnvironmentModel
from legato.nn.mlp import Linear
from legato.planning.options import Shooting
from legato.policy import LastStep
from legato.training.policy_file import newest_learner
from legato.training.run import Run

SPEC = Spec(1, (-1.0,), (3.0,))  # of which 0.5 a in units of the bounds is a quarter, about its middle
GAMMA, S = 0.9, jnp.asarray([1.7])
HOW = Shooting(horizon=4, samples=64, iterations=4, elites=8)
UNITS = Units(Normaliser(jnp.array([0.3]), jnp.array([2.0])), jnp.asarray(5.0))


def lines() -> Ensemble:
    """s' - s = 0.5 a +- 0.2, and a reward of -s +- 1, of two members whose mean is exact; a third is far off."""
    layer = Linear(2, 4, key=jax.random.key(0))
    weight, bias = np.zeros((3, 2, 4), np.float32), np.zeros((3, 4), np.float32)
    weight[:, 1, 0], weight[:, 0, 1] = 0.5, -1
    bias[:, 0], bias[:, 1] = [0.2, -0.2, 50], [1, -1, 50]
    layer = eqx.tree_at(lambda node: (node.weight, node.bias), layer, (jnp.asarray(weight), jnp.asarray(bias)))
    return Ensemble(layer, jnp.zeros(2), jnp.full(2, -10.0), none(2), none(2))


def above(s: Any, a: Any, s_next: Any) -> Any:
    return s_next[..., 0] > 2


@pytest.fixture(scope="module")
def learner() -> Learner:
    config = MBPO(members=2, elites=2, model_hidden=(8,), hidden=8, real_share=1.0, termination="never")
    found = jax.jit(mbpo.init, static_argnums=(0, 1))(config, SPEC, jax.random.key(0))
    model = EnvironmentModel(lines(), jnp.asarray([0, 1], jnp.int32), rule=above)
    return replace(found, model=model, units=UNITS)


def made(learner: Learner, how: Shooting | None) -> ModelPlanner:
    actor = imagination.policy(learner).actor
    return ModelPlanner(EnsembleModel(actor, learner.sac.critic, learner.model, UNITS, GAMMA), SPEC, how)


decide = jax.jit(lambda p, key, length, s=S: p.decide(LastStep(s, jnp.zeros(1)), key, length)[0], static_argnums=2)
greedy = jax.jit(lambda learner, s: mbpo.policy(MBPO(), learner).decide(LastStep(s, jnp.zeros(1)), None, 1)[0][0])
valued = jax.jit(lambda critic, s, a: jnp.minimum(*critic(s, a)))
judged = jax.jit(lambda p, units, s=S: jax.vmap(lambda unit: p.plan_value(p.model.encode(s), unit))(units))


def test_an_unrolled_plan_is_acting_step_by_step_in_the_model(learner: Learner) -> None:
    """In the environment's units, whatever the length; an end is not heeded."""
    s, expected = S, []
    for _ in range(5):
        a = np.asarray(greedy(learner, s))
        expected.append(a)
        s = s + 0.5 * SPEC.normalise(jnp.asarray(a))
    for length in (1, 2, 5):
        np.testing.assert_allclose(decide(made(learner, None), None, length), expected[:length], atol=1e-6)


def test_a_sequence_is_worth_its_discounted_rewards_until_it_ends_and_what_critics_expect(learner: Learner) -> None:
    """By hand, with ends within the horizon, at its end, and none."""
    rng, policy = np.random.default_rng(0), made(learner, HOW)
    units = np.concatenate([rng.uniform(-1, 1, (5, 4, 1)), np.ones((1, 4, 1)), -np.ones((1, 4, 1))]).astype(np.float32)
    ends = []
    for found, unit in zip(np.asarray(judged(policy, units)), units, strict=True):
        x, share, total = float(S[0]), 1.0, 0.0
        for a in unit[:, 0]:
            total += share * -x / 5
            x += 0.5 * float(a)
            share *= GAMMA * (x <= 2)
        pi = SPEC.normalise(greedy(learner, jnp.asarray([x], jnp.float32)))
        total += share * float(valued(learner.sac.critic, jnp.asarray([(x - 0.3) / 2], jnp.float32), pi))
        assert float(found) == pytest.approx(total, rel=1e-4, abs=1e-5)
        ends.append(share == 0)
    assert any(ends) and not all(ends)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_search_finds_a_better_plan_than_the_actors(temperature: float, learner: Learner) -> None:
    plans = [decide(made(learner, how), None, 4, jnp.zeros(1)) for how in (None, replace(HOW, temperature=temperature))]
    drawn = np.random.default_rng(1).uniform(-1, 1, (5_000, 4, 1)).astype(np.float32)
    units = np.concatenate([np.stack([SPEC.normalise(plan) for plan in plans]), drawn])
    actors, found, *others = np.asarray(judged(made(learner, HOW), units, jnp.zeros(1))).tolist()
    assert found > actors and found > np.quantile(others, 0.99)


def test_the_first_actions_do_not_depend_on_how_many_are_asked_for(learner: Learner) -> None:
    """Beyond the horizon the actor goes on from where the plan is imagined to end."""
    policy = made(learner, HOW)
    whole = np.asarray(decide(policy, None, 7))
    assert (whole >= -1 - 1e-5).all() and (whole <= 3 + 1e-5).all()
    for length in (1, 4, 5):
        np.testing.assert_allclose(decide(policy, None, length), whole[:length], atol=1e-5)
    end = S + 0.5 * SPEC.normalise(jnp.asarray(whole[:4])).sum(axis=0)
    np.testing.assert_allclose(whole[4:], decide(made(learner, None), None, 3, end), atol=1e-5)
    assert not np.array_equal(decide(policy, jax.random.key(5), 4), whole[:4])  # with a key it explores


# --- from a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny CMLO. Read only."""
    short = {"steps": 24, "start_steps": 20, "eval_every": 24, "checkpoint_every": 24, "eval_episodes": 1, "seed": 3}
    options = {**IMAGINING, "check_every": 4, "shortest": 8, "longest": 16, "max_episode_steps": 12}
    return api.train(
        "cmlo", "Pendulum-v1", out=tmp_path_factory.mktemp("runs") / "cmlo", quiet=True, **options, **short
    )


def test_what_is_planned_in_comes_from_the_newest_checkpoint(run: Run) -> None:
    found, learnt = api.load(run.path, search={"planner": "mppi", "samples": 16}).policy, newest_learner(run, 3)
    assert isinstance(found, ModelPlanner) and found.how == Shooting(samples=16)
    for one, other in ((found.model.model, learnt.model), (found.model.critic, learnt.sac.critic)):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found.model.gamma == run.config.gamma  # type: ignore[union-attr]
    step = LastStep(jnp.zeros(3), jnp.zeros(1))
    plan = jax.jit(lambda policy: policy.decide(step, None, 2)[0])(found)
    assert plan.shape == (2, 1) and np.isfinite(plan).all() and (np.abs(plan) <= 2 + 1e-5).all()
    assert api.load(run.path, search={"planner": "unrolled"}).policy.how is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"samples": 8}, "which planner. a search in the model of 'cmlo' is one of unrolled, mppi, cem"),
        ({"planner": "mpi"}, "unknown planner 'mpi'; did you mean 'mppi'"),
        ({"planner": "unrolled", "samples": 8}, "planner 'unrolled' takes no options: samples is one of mppi and cem"),
        ({"planner": "cem", "samples": 10**9}, r"1000000000 samples would take .* at most \d+ samples"),
    ],
)
def test_what_makes_no_sense_is_refused(search: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(LegatoError, match=message):
        api.load(run.path, search=search)


def test_a_run_without_a_model_is_refused(learner: Learner) -> None:
    with pytest.raises(LegatoError, match="no model to plan in: none was fitted in this run"):
        compose(MBPO(), imagination.policy(learner), {"planner": "unrolled"}, Parts(lambda: learner))
