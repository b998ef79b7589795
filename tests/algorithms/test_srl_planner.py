"""Planning in a model with critics: what is judged, what the actor goes on with, the way from a run's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import SIZES, train

from legato import api
from legato.algorithms.srl import srl
from legato.algorithms.srl.planner import ModelPlanner
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.planning.shooting import Shooting
from legato.policy import LastStep
from legato.training import policy_file
from legato.training.run import Run

SPEC = Spec(3, (-0.2, -3.0), (0.8, 1.0))
LOW, HIGH = np.array(SPEC.low), np.array(SPEC.high)
HOW = Shooting(horizon=4, samples=64, iterations=3, elites=8, temperature=0.5)
S, BEFORE = jnp.asarray([0.3, -0.5, 1.0]), jnp.asarray([0.1, -1.0])


@pytest.fixture(scope="module")
def learner() -> srl.Learner:
    config = srl.Config(horizon=3, hidden=8, model_hidden=(8, 8), action_units="environment")
    return srl.init(config, SPEC, jax.random.key(0))


def planner(learner: srl.Learner, how: Shooting | None) -> ModelPlanner:
    return ModelPlanner(learner.actor, learner.critic, learner.model, SPEC, how)


def decided(policy: ModelPlanner, length: int, key: jax.Array | None = None) -> np.ndarray:
    return np.asarray(policy.decide(LastStep(S, BEFORE), key, length)[0])


def test_the_actor_decides_step_by_step_in_imagined_states(learner: srl.Learner) -> None:
    s, before, expected = S, BEFORE, []
    for _ in range(4):
        before = learner.actor.greedy(s, before, 1)[0]
        expected.append(before)
        s = learner.model(s, before)
    for length in (1, 4):
        np.testing.assert_allclose(decided(planner(learner, None), length), expected[:length], atol=1e-6)


def test_a_sequence_is_judged_by_the_critics_along_its_imagined_way(learner: srl.Learner) -> None:
    unit = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    s, total = S, 0.0
    for a in LOW + (HIGH - LOW) * (unit + 1) / 2:
        total += min(float(q) for q in learner.critic(s, jnp.asarray(a, jnp.float32)))
        s = learner.model(s, jnp.asarray(a, jnp.float32))
    policy = planner(learner, HOW)
    assert float(policy.plan_value(S, jnp.asarray(unit))) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_plan_is_judged_better_than_the_actors(temperature: float, learner: srl.Learner) -> None:
    """And nearly as good as the best of many thousand drawn at random."""
    policy = planner(learner, Shooting(**{**vars(HOW), "temperature": temperature, "iterations": 6}))
    judge = jax.jit(lambda plan: policy.plan_value(S, SPEC.normalise(plan)))
    actors = judge(policy.write_plan(S, BEFORE, 4))
    found = judge(jnp.asarray(decided(policy, 4)))
    drawn = jax.random.uniform(jax.random.key(1), (5_000, 4, 2), minval=-1, maxval=1)
    scores = np.asarray(jax.vmap(lambda unit: policy.plan_value(S, unit))(drawn))
    assert found > actors
    assert found > np.quantile(scores, 0.99)


def test_plans_are_repeated_kept_to_the_bounds_and_do_not_depend_on_their_length(learner: srl.Learner) -> None:
    policy = planner(learner, HOW)
    whole = decided(policy, 9)
    np.testing.assert_array_equal(whole, decided(policy, 9))
    assert (whole >= LOW - 1e-6).all() and (whole <= HIGH + 1e-6).all()
    for length in (1, 4, 6):
        np.testing.assert_allclose(decided(policy, length), whole[:length], atol=1e-5)
    assert not np.array_equal(decided(policy, 4, jax.random.key(5)), whole[:4])  # with a key it explores


def test_beyond_the_horizon_the_actor_goes_on(learner: srl.Learner) -> None:
    policy, s = planner(learner, HOW), S
    whole = decided(policy, 6)
    for a in whole[:4]:
        s = learner.model(s, jnp.asarray(a))
    np.testing.assert_allclose(whole[4:], policy.write_plan(s, jnp.asarray(whole[3]), 2), atol=1e-5)


def test_a_planner_works_where_actor_critics_and_model_do() -> None:
    """In a latent state, and with critics that read an action's place in the plan (of the last one beyond it)."""
    config = srl.Config(horizon=3, hidden=8, latent=5, critic="time_aware", action_units="environment")
    learner = srl.init(config, SPEC, jax.random.key(0))
    assert learner.encoder is not None
    policy = ModelPlanner(learner.actor, learner.critic, learner.model, SPEC, HOW, learner.encoder, 3)
    z, total = learner.encoder(S), 0.0
    unit = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    for a, k in zip(SPEC.denormalise(jnp.asarray(unit)), (0, 1, 2, 2), strict=True):
        total += min(float(q) for q in learner.critic(jnp.append(z, k / 3), a))
        z = learner.model(z, a)
    assert float(policy.plan_value(learner.encoder(S), jnp.asarray(unit))) == pytest.approx(total, rel=1e-5)
    unrolled = ModelPlanner(learner.actor, learner.critic, learner.model, SPEC, None, learner.encoder, 3)
    first = learner.actor.greedy(learner.encoder(S), BEFORE, 1)
    np.testing.assert_allclose(decided(unrolled, 1), first, atol=1e-6)


# --- from a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds of SRL. Read only."""
    return train("srl", tmp_path_factory.mktemp("runs") / "srl", seeds=2, seed=3)


def test_model_and_critics_come_from_the_newest_checkpoint(run: Run) -> None:
    for seed in run.seeds:
        policy = api.load(run.path, seed, search={"planner": "cem", "samples": 16}).policy
        assert isinstance(policy, ModelPlanner) and policy.how == Shooting(samples=16, temperature=0.0)
        learnt = policy_file.newest_learner(run, seed)
        for mine, other in ((policy.model, learnt.model), (policy.critic, learnt.critic), (policy.actor, learnt.actor)):
            assert all(map(np.array_equal, jax.tree.leaves(mine), jax.tree.leaves(other)))
    one, other = (policy_file.newest_learner(run, seed).model for seed in run.seeds)
    assert not np.array_equal(one.mlp.layers[0].weight, other.mlp.layers[0].weight)
    assert api.load(run.path, search={"planner": "unrolled"}).policy.how is None  # type: ignore[attr-defined]


def test_a_latent_run_is_planned_in_and_refuses_other_observations(tmp_path: Path) -> None:
    run = train("srl", tmp_path / "latent", steps=150, latent=5, critic="time_aware")
    policy = api.load(run.path, search={"planner": "mppi", "samples": 16}).policy
    learnt = policy_file.newest_learner(run, 0)
    assert isinstance(policy, ModelPlanner) and policy.indexed_steps == run.config.horizon
    assert all(map(np.array_equal, jax.tree.leaves(policy.encoder), jax.tree.leaves(learnt.encoder)))
    with pytest.raises(LegatoError, match=r"4 observed numbers .* trained with 3 observed"):
        api.evaluate(run, env="InvertedPendulum-v5", episodes=1, quiet=True)


def test_a_planner_is_swept_like_any_policy(run: Run) -> None:
    found = api.evaluate(
        run, search={"planner": "mppi", "samples": 8, "elites": 2}, episodes=1, clocks=False, quiet=True
    )
    assert (
        found.which == "last+planner=mppi+samples=8+elites=2"
        and found.label == "SRL-4 (+planner=mppi, samples=8, elites=2)"
    )
    assert found.asl.returns.shape[0] == 2 and np.isfinite(found.asl.returns).all()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"planner": "mpi"}, "unknown planner 'mpi'; did you mean 'mppi'"),
        ({"planner": "mppi", "sampels": 8}, "unknown option of a planner 'sampels'; did you mean 'samples'"),
        ({"planner": "unrolled", "samples": 8}, "unknown option of a planner 'samples'"),
        ({"planner": "mppi", "samples": 2.5}, "samples of a planner is of type int; 2.5 was given"),
        ({"planner": "mppi", "samples": 4}, "8 elites cannot be chosen from 4 samples"),
        (
            {"planner": "cem", "samples": 10**9},
            r"1000000000 samples would take .* and 4 are allowed: at most \d+ samples",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(search: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(LegatoError, match=message):
        api.load(run.path, search=search)


def test_what_cannot_be_planned_with_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="a policy of 'sac' takes no search and no critic: those of srl and tt do"):
        api.load(train("sac", tmp_path / "sac", **{**SIZES, "steps": 150}).path, search={"planner": "mppi"})
    with pytest.raises(LegatoError, match="is a policy alone: model and critics"):
        api.load(run.policy_path(3), search={"planner": "mppi"})
    bare = Run.create(tmp_path / "bare", "srl", "cpu", run.config, run.settings, run.spec)
    loaded = api.load(run.path)
    policy_file.save(bare.path / "policy" / "seed-3" / "last", loaded.policy, loaded.card)
    with pytest.raises(LegatoError, match="holds no checkpoint"):
        api.load(bare.path, search={"planner": "mppi"})
