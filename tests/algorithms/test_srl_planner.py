"""Planning in a model with critics: what is judged, what the actor goes on with, the way from a run's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import differences
from tests.tiny import train, untrained

from legato import api
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.srl import srl
from legato.algorithms.srl.planner import SRLModel
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.evaluation import sweeps
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP
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
    return init(config, SPEC, jax.random.key(0))


init = jax.jit(srl.init, static_argnums=(0, 1))
greedy = jax.jit(srl.Actor.greedy, static_argnums=3)
predicted, valued, encode = (jax.jit(of.__call__) for of in (Dynamics, TwinCritic, MLP))
judged, written = jax.jit(ModelPlanner.plan_value), jax.jit(ModelPlanner.write_plan, static_argnums=3)
decide = jax.jit(lambda policy, key, length: policy.decide(LastStep(S, BEFORE), key, length)[0], static_argnums=2)


def planner(learner: srl.Learner, how: Shooting | None) -> ModelPlanner:
    return ModelPlanner(SRLModel(learner.actor, learner.critic, learner.model), SPEC, how)


def decided(policy: ModelPlanner, length: int, key: jax.Array | None = None) -> np.ndarray:
    return np.asarray(decide(policy, key, length))


def test_the_actor_decides_step_by_step_in_imagined_states(learner: srl.Learner) -> None:
    s, before, expected = S, BEFORE, []
    for _ in range(4):
        before = np.asarray(greedy(learner.actor, s, before, 1))[0]
        expected.append(before)
        s = predicted(learner.model, s, before)
    for length in (1, 4):
        np.testing.assert_allclose(decided(planner(learner, None), length), expected[:length], atol=1e-6)


def test_a_sequence_is_judged_by_the_critics_along_its_imagined_way(learner: srl.Learner) -> None:
    unit = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    s, total = S, 0.0
    for a in np.float32(LOW + (HIGH - LOW) * (unit + 1) / 2):
        total += min(float(q) for q in valued(learner.critic, s, a))
        s = predicted(learner.model, s, a)
    policy = planner(learner, HOW)
    assert float(judged(policy, S, unit)) == pytest.approx(total, rel=1e-5)


judged_all = jax.jit(lambda policy, units: jax.vmap(lambda unit: policy.plan_value(S, unit))(units))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_plan_is_judged_better_than_the_actors(temperature: float, learner: srl.Learner) -> None:
    """And nearly as good as the best of many thousand drawn at random."""
    policy = planner(learner, Shooting(**{**vars(HOW), "temperature": temperature, "iterations": 6}))
    plans = np.stack([written(policy, S, BEFORE, 4), decided(policy, 4)])
    drawn = np.random.default_rng(1).uniform(-1, 1, (5_000, 4, 2))
    units = np.concatenate([2 * (plans - LOW) / (HIGH - LOW) - 1, drawn]).astype(np.float32)
    actors, found, *scores = np.asarray(judged_all(policy, units)).tolist()
    assert found > actors
    assert found > np.quantile(scores, 0.99)


def test_plans_are_repeated_kept_to_the_bounds_and_do_not_depend_on_their_length(learner: srl.Learner) -> None:
    policy = planner(learner, HOW)
    whole = decided(policy, 6)
    np.testing.assert_array_equal(whole, decided(policy, 6))
    assert (whole >= LOW - 1e-6).all() and (whole <= HIGH + 1e-6).all()
    for length in (1, 4):
        np.testing.assert_allclose(decided(policy, length), whole[:length], atol=1e-5)
    assert not np.array_equal(decided(policy, 4, jax.random.key(5)), whole[:4])  # with a key it explores


def test_beyond_the_horizon_the_actor_goes_on(learner: srl.Learner) -> None:
    policy, s = planner(learner, HOW), S
    whole = decided(policy, 6)
    for a in whole[:4]:
        s = predicted(learner.model, s, a)
    np.testing.assert_allclose(whole[4:], written(policy, s, whole[3], 2), atol=1e-5)


def test_a_planner_works_where_actor_critics_and_model_do() -> None:
    """In a latent state, and with critics that read an action's place in the plan (of the last one beyond it)."""
    config = srl.Config(horizon=3, hidden=8, latent=5, critic="time_aware", action_units="environment")
    learner = init(config, SPEC, jax.random.key(0))
    assert learner.encoder is not None
    model = SRLModel(learner.actor, learner.critic, learner.model, learner.encoder, 3)
    policy = ModelPlanner(model, SPEC, HOW)
    first = z = encode(learner.encoder, S)
    total = 0.0
    unit = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    for a, k in zip(np.float32(LOW + (HIGH - LOW) * (unit + 1) / 2), (0, 1, 2, 2), strict=True):
        total += min(float(q) for q in valued(learner.critic, np.append(z, np.float32(k / 3)), a))
        z = predicted(learner.model, z, a)
    assert float(judged(policy, first, unit)) == pytest.approx(total, rel=1e-5)
    unrolled = ModelPlanner(model, SPEC, None)
    expected = greedy(learner.actor, first, BEFORE, 1)
    np.testing.assert_allclose(decided(unrolled, 1), expected, atol=1e-6)


# --- from a run ---


# As long as an episode, with an evaluation at the end and updates before it.
SHORT: dict[str, Any] = {"steps": 200, "eval_every": 200, "checkpoint_every": 200, "eval_episodes": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds of SRL, in a latent state. Read only."""
    options = {"seeds": 2, "seed": 3, "latent": 5, "critic": "time_aware"}
    return train("srl", tmp_path_factory.mktemp("runs") / "srl", **options, **SHORT)


def test_what_is_planned_in_comes_from_the_newest_checkpoint(run: Run) -> None:
    parts = ("model", "critic", "actor", "encoder")
    learnt = [policy_file.newest_learner(run, seed) for seed in run.seeds]
    for seed, learner in zip(run.seeds, learnt, strict=True):
        policy = api.load(run.path, seed, search={"planner": "cem", "samples": 16}).policy
        assert isinstance(policy, ModelPlanner) and policy.how == Shooting(samples=16, temperature=0.0)
        assert policy.model.indexed_steps == run.config.horizon  # type: ignore[union-attr]
        assert not differences(policy.model, learner, parts)
    assert differences(*learnt, parts) == set(parts)
    assert api.load(run.path, search={"planner": "unrolled"}).policy.how is None  # type: ignore[attr-defined]


def test_a_latent_run_refuses_other_observations(run: Run) -> None:
    with pytest.raises(LegatoError, match=r"4 observed numbers .* trained with 3 observed"):
        api.evaluate(run, env="InvertedPendulum-v5", episodes=1, quiet=True)


def test_a_planner_is_swept_like_any_policy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over episodes of 40 steps, with plans that are all asked for in the greatest length."""
    monkeypatch.setattr(sweeps, "PLAN_LENGTHS", sweeps.PLAN_LENGTHS[-1:])
    search, briefly = {"planner": "mppi", "samples": 8, "elites": 2}, {"episodes": 1, "max_episode_steps": 40}
    found = api.evaluate(run, search=search, clocks=False, quiet=True, **briefly)
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
        ({"planner": "unrolled", "samples": 8}, "planner 'unrolled' takes no options: samples is one of mppi and cem"),
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
    with pytest.raises(
        LegatoError,
        match="a policy of 'sac' takes no search and no critic: those of srl, usac, tt, mbpo, cmlo and mopo do",
    ):
        api.load(untrained("sac", tmp_path / "sac").path, search={"planner": "mppi"})
    with pytest.raises(LegatoError, match="is a policy alone: model and critics"):
        api.load(run.policy_path(3), search={"planner": "mppi"})
    bare = Run.create(tmp_path / "bare", "srl", "cpu", run.config, run.settings, run.spec)
    loaded = api.load(run.path)
    policy_file.save(bare.path / "policy" / "seed-3" / "last", loaded.policy, loaded.card)
    with pytest.raises(LegatoError, match="holds no checkpoint"):
        api.load(bare.path, search={"planner": "mppi"})
