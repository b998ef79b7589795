"""Unrolled SAC: plans in exact models are what the actor does when asked at every step, also where they are late;
targets by brute force; whose stretches a model learns from; a network that learns to write plans.
"""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import noise, same, transitions

from legato import api
from legato.algorithms.action_sequence import ActionSequence
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.protocol import Counts
from legato.algorithms.unrolled_sac import stages, unrolled_sac
from legato.algorithms.unrolled_sac.planner import UnrolledModel
from legato.algorithms.unrolled_sac.unrolled_sac import Config, Learner
from legato.data.replay import Replay, Sequences, Transition, scale_actions, sequences
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig, make_vec
from legato.errors import LegatoError, LegatoWarning
from legato.nn.distributions import TanhNormal
from legato.nn.ensembles import TwinCritic
from legato.policy import LastStep, Step
from legato.rollout import Clock, episodes
from legato.training.checkpoint import Checkpoints
from legato.training.interruption import Interrupted
from legato.training.policy_file import newest_learner, newest_learners
from legato.training.run import Run

SPEC = Spec(2, (-1.0,), (3.0,))
CONFIG = Config(hidden=8, batch_size=12, gamma=0.9, n_step=3, members=3, model_hidden=(8, 8), model_steps=2)
init = jax.jit(unrolled_sac.init, static_argnums=(0, 1))
targets = jax.jit(unrolled_sac.targets, static_argnums=0)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return init(CONFIG, SPEC, jax.random.key(0))


# --- plans ---

A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]])  # of LQR-v0
LQR = Spec(2, (-1.0,), (1.0,))


def exact(spread: float) -> Any:
    """Three models of LQR-v0, of which two are wrong by `spread`, up and down: their mean is exact."""
    models = jax.jit(unrolled_sac._models, static_argnums=(0, 1))(CONFIG, LQR, jax.random.key(1))
    whole = np.concatenate([A.T, B.T])  # x' = [x, u] @ whole, through ReLUs as max(x, 0) - max(-x, 0)
    first, second, last = np.zeros((3, 8)), np.zeros((8, 8)), np.zeros((8, 2))
    first[:, :3], first[:, 3:6] = np.eye(3), -np.eye(3)
    second[:6, :6] = np.eye(6)
    last[:3], last[3:6] = whole, -whole
    layers = models.mlp.layers
    for place, weight in enumerate((first, second, last)):
        stacked = jnp.asarray(np.broadcast_to(weight, (3, *weight.shape)), jnp.float32)
        layers = (
            *layers[:place],
            eqx.tree_at(lambda layer: layer.weight, layers[place], stacked),
            *layers[place + 1 :],
        )
    bias = jnp.array([0.0, spread, -spread])[:, None] * jnp.ones(2)
    layers = (*layers[:2], eqx.tree_at(lambda layer: layer.bias, layers[2], bias))
    return eqx.tree_at(lambda found: (found.mlp.layers, found.mean_square_delta), models, (layers, None))


class Gain(eqx.Module):
    """u ~ N(-K x) within the bounds, with the known best K, about."""

    spec: Spec = eqx.field(static=True)

    def __call__(self, s: jax.Array) -> TanhNormal:
        u = -2.0 * s[..., :1] - 2.0 * s[..., 1:]
        return TanhNormal(u, jnp.full(u.shape, -1.0), *self.spec.box())


def planner(models: Any) -> ModelPlanner:
    return ModelPlanner(UnrolledModel(Gain(LQR), models), LQR, None)


def test_a_plan_in_exact_models_is_what_the_actor_does_when_asked_at_every_step() -> None:
    """Returns of LQR-v0 do not depend on how rarely it is asked, though members are wrong: their mean is right."""
    policy = planner(exact(0.3))
    stacked = jax.tree.map(lambda leaf: leaf[None], policy)
    environments = make_vec(EnvironmentConfig("legato/LQR-v0"), 4)
    every = [episodes(stacked, environments, LQR, Clock(n), [0], "test", length=30) for n in (1, 7, 30)]
    wrong = planner(jax.tree.map(lambda leaf: leaf[:2], exact(0.3)))
    stacked = jax.tree.map(lambda leaf: leaf[None], wrong)
    off = episodes(stacked, environments, LQR, Clock(30), [0], "test", length=30)
    environments.close()
    np.testing.assert_allclose(every[1], every[0], rtol=1e-4)
    np.testing.assert_allclose(every[2], every[0], rtol=1e-4)
    assert np.all(off < 1.5 * every[0])  # costs


def test_a_sampled_plan_is_drawn_anew_in_every_predicted_state() -> None:
    policy, state = planner(exact(0.0)), LastStep(jnp.array([0.2, -0.1]), jnp.zeros(1))
    key = jax.random.key(3)
    plan = np.asarray(jax.jit(lambda: policy.decide(state, key, 5)[0])())
    eps = np.asarray(jax.random.normal(key, (5, 1)))
    x, u = np.array([0.2, -0.1]), []
    for k in range(5):
        u.append(np.tanh(-2.0 * x.sum() + np.exp(-1.0) * eps[k, 0]))
        x = A @ x + B[:, 0] * u[-1]
    np.testing.assert_allclose(plan[:, 0], u, atol=1e-5)


def test_a_plan_that_takes_effect_late_begins_where_the_plan_before_leads() -> None:
    """Decided every four steps, two steps late, while the environment does not do what the model says."""
    late = planner(exact(0.0)).with_delay(2, 6)
    decide = jax.jit(lambda state: late.decide(state, None, 8))
    state = late.init_state(())

    def closed_loop(x: np.ndarray, steps: int) -> list[float]:
        u = []
        for _ in range(steps):
            u.append(float(np.tanh(-2.0 * x.sum())))
            x = A @ x + B[:, 0] * u[-1]
        return u

    def seen(state: Any, x: np.ndarray, first: bool) -> Any:
        step = Step(jnp.asarray(x, jnp.float32), jnp.zeros(()), jnp.zeros(1), jnp.asarray(first))
        return late.observe(state, step)

    x = np.array([0.5, 0.0])
    plan, state = decide(seen(state, x, True))
    np.testing.assert_allclose(plan[:, 0], closed_loop(x, 8), atol=1e-5)  # the first plan is never late
    before = np.asarray(plan[:, 0])
    for x in ([3.0, 3.0], [3.0, 3.0], [3.0, 3.0], [-0.3, 0.2]):  # elsewhere
        state = seen(state, np.array(x), False)
    plan, after = decide(state)
    x = np.array([-0.3, 0.2])
    for u in before[4:6]:
        x = A @ x + B[:, 0] * u
    np.testing.assert_allclose(plan[:2, 0], before[4:6], atol=1e-6)
    np.testing.assert_allclose(plan[2:, 0], closed_loop(x, 6), atol=1e-5)
    np.testing.assert_allclose(after.plan, plan[:6])
    assert planner(exact(0.0)).with_delay(0, 4).delay == 0 and int(after.since) == 0


# --- targets ---


def stretches() -> Sequences:
    """Of three steps: one whole, one that terminates with its second, one cut after its first, one whole."""
    parts = [transitions(i, SPEC, 4, 1.0) for i in range(3)]
    steps: Transition = jax.tree.map(lambda *leaves: jnp.stack(leaves).astype(jnp.float32), *parts)
    steps = replace(steps, continues=steps.continues.at[1, 1].set(0.0))
    valid = jnp.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], jnp.float32)
    return Sequences(steps, valid)


def test_targets_are_their_equation(learner: Learner) -> None:
    batch, key = stretches(), jax.random.key(5)
    found = np.asarray(targets(CONFIG, learner.sac, batch, key))
    steps, eps = batch.steps, jax.random.normal(key, (4, 1))
    for i, n in enumerate([3, 2, 1, 3]):
        s = steps.next_observation[n - 1]
        a, log_pi = jax.jit(lambda s: learner.sac.actor(s).sample(eps))(s)
        q = jax.jit(TwinCritic.__call__)(learner.sac.target_critic, s, a)
        value = float(np.minimum(*q)[i] - learner.sac.alpha * log_pi[i])
        y = (
            sum(0.9**k * float(steps.reward[k, i]) for k in range(n))
            + 0.9**n * float(steps.continues[n - 1, i]) * value
        )
        assert found[i] == pytest.approx(y, rel=1e-4)


# --- models ---


def test_each_model_learns_from_its_own_stretches(learner: Learner) -> None:
    part = jax.tree.map(lambda leaf: leaf[:2].repeat(3, axis=1), stretches())  # twelve for three models
    gradient = jax.jit(lambda batch: jax.grad(unrolled_sac.model_loss)(learner.models, CONFIG, batch))
    other = replace(part, steps=replace(part.steps, action=part.steps.action.at[:, 4:8].add(1.0)))
    before, after = gradient(part), gradient(other)
    of = [jax.tree.map(lambda leaf, i=i: leaf[i], (before.mlp, after.mlp)) for i in range(3)]
    assert [same(*pair) for pair in of] == [True, False, True]


def test_update_reports_finite_numbers_and_moves_all_parts(learner: Learner) -> None:
    batch = stretches(), jax.tree.map(lambda leaf: leaf[:2].repeat(3, axis=1), stretches())
    after, metrics = jax.jit(unrolled_sac.update, static_argnums=0)(CONFIG, learner, batch, jax.random.key(0))
    assert all(np.isfinite(value) for value in metrics.values())
    for name in ("models", "target_models", "model_optimiser", "sac"):
        assert not same(getattr(after, name), getattr(learner, name)), name


# --- writing ---


def test_when_plans_are_written(learner: Learner) -> None:
    """At first nothing is done; then at quarters of the run's steps, of the later end too where it was given one."""

    def due(config: Config, end: int) -> list[int]:
        counts = [(None if at == 50 else Counts(at - 50, 0, end), Counts(at, 0, end)) for at in range(50, 1050, 50)]
        return [now.steps for last, now in counts if stages.refresh_due(config, learner, last, now)]

    written = replace(CONFIG, policy="written")
    assert due(written, 1000) == [50, 250, 500, 750]
    assert due(written, 2000) == [50, 500, 1000]
    assert due(CONFIG, 1000) == [50]


def test_models_are_fitted_for_as_many_updates_as_asked(run: Path) -> None:
    """In dispatches of 250: 260 updates are not 500. Their errors on stretches of the replay fall."""
    found, (learner, replay) = Run(run), kept(run)
    keys = jax.random.split(jax.random.key(0), 1)
    few, more = (
        stages.fit_models(replace(found.config, fit_updates=n), learner, replay, keys, lambda *args: None)
        for n in (260, 500)
    )
    assert not same(few, more)
    replay_0, before, after = jax.tree.map(lambda leaf: leaf[0], (replay, learner.models, more))
    batch = scale_actions(sequences(replay_0, jax.random.key(3), 64, 3), found.spec)
    of = jax.jit(lambda models: unrolled_sac.model_loss(models, found.config, batch))
    assert float(of(after)) < 0.9 * float(of(before))


def kept(run: Path) -> tuple[Learner, Replay]:
    """The run's learners and replays at its end, stacked over its one seed."""
    found = Run(run)
    checkpoints = Checkpoints(run / "checkpoints", create=False)
    state = checkpoints.load()[1]["replay"]
    checkpoints.close()
    replay = Replay(jnp.asarray(state["rows"]), jnp.asarray(state["added"]), found.spec)
    return newest_learners(found, found.seeds), replay


def test_writing_loss_is_its_equation() -> None:
    """On the double integrator with exact models, whose states are products of matrices."""
    found = init(replace(CONFIG, policy="written"), LQR, jax.random.key(2)).writer
    assert found is not None
    models = eqx.tree_at(
        lambda m: m.mean_square_delta, exact(0.0), jnp.full((3, 2), 0.25), is_leaf=lambda leaf: leaf is None
    )
    models = eqx.tree_at(lambda m: m.mlp.layers[2].weight, models, replace_output(models))
    s, a_prev, plan = noise(0, 5, 2), noise(1, 5, 1), jnp.tanh(noise(2, 5, 4, 1))
    loss = float(jax.jit(stages.writing_loss)(found, models, s, a_prev, plan))
    written = np.asarray(jax.jit(lambda s, a_prev: found.greedy(s, a_prev, 4))(s, a_prev))
    by_hand = []
    for i in range(5):
        x, y = np.asarray(s[i]), np.asarray(s[i])
        for k in range(4):
            w, a = written[k, i], np.asarray(plan[i, k])
            x, y = A @ x + B @ w, A @ y + B @ a
            e = np.mean(((x - y) / 0.5) ** 2)
            by_hand.append(float(np.mean((w - a) ** 2) + 0.02 * e / (1 + e)))
    assert loss == pytest.approx(np.mean(by_hand), rel=1e-3)


def replace_output(models: Any) -> jax.Array:
    """The last layer's weights of `exact` for models of changes in units of 0.5: (x' - x) / 0.5."""
    whole = (np.concatenate([A.T, B.T]) - np.eye(3, 2)) / (0.5 + 1e-6)
    last = np.zeros((8, 2))
    last[:3], last[3:6] = whole, -whole
    return jnp.asarray(np.broadcast_to(last, (3, 8, 2)), jnp.float32)


WRITTEN: dict[str, Any] = {
    "policy": "written",
    "horizon": 4,
    "write_length": 4,
    "write_updates": 500,
    "fit_updates": 300,
    "fit_steps": 3,
}
SMALL: dict[str, Any] = {"hidden": 8, "batch_size": 8, "members": 2, "model_hidden": (8, 8), "model_steps": 2}
TIMES: dict[str, Any] = {"steps": 80, "start_steps": 20, "eval_every": 40, "eval_episodes": 1, "checkpoint_every": 40}


def trained(out: Path, **changes: Any) -> Path:
    options = {**WRITTEN, **SMALL, **TIMES, "max_episode_steps": 20, **changes}
    return Path(api.train("usac", "Pendulum-v1", out=out, quiet=True, **options).path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("unrolled") / "run")


def test_a_written_run_has_a_policy_without_models_and_is_resumed_the_same(run: Path, tmp_path: Path) -> None:
    policy = api.load(run).policy
    assert isinstance(policy, ActionSequence)
    part = tmp_path / "part"
    shutil.copytree(run, part)
    api.train(resume=part, from_step=40, quiet=True)  # it had learnt to write at a quarter
    assert same(api.load(part).policy, policy)


def test_a_run_is_finished_once_at_every_end(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a signal stops it while it is finished, or in the last evaluation; and again at a later end."""
    policy, part, real, calls = api.load(run).policy, tmp_path / "part", stages.finish, []
    shutil.copytree(run, part)

    def stopped(*args: Any) -> Learner:
        calls.append("stopped")
        signal.raise_signal(signal.SIGTERM)
        return real(*args)

    def counted(*args: Any) -> Learner:
        calls.append("finished")
        return real(*args)

    monkeypatch.setattr(stages, "finish", stopped)
    with pytest.raises(Interrupted):
        api.train(resume=part, from_step=40, quiet=True)
    monkeypatch.setattr(stages, "finish", counted)
    api.train(resume=part, quiet=True)
    assert same(api.load(part).policy, policy)
    api.train(resume=part, quiet=True)
    assert calls == ["stopped", "finished"]
    with pytest.warns(LegatoWarning, match="anneal_over"):
        api.train(resume=part, steps=100, quiet=True)
    assert calls == ["stopped", "finished", "finished"] and not same(api.load(part).policy, policy)


def test_written_plans_come_near_what_is_planned(run: Path) -> None:
    """On states of the replay, by a tenth of the squared error of a network that has not learnt."""
    learner, config = newest_learner(Run(run), 0), Run(run).config
    s = jnp.asarray(api.collect(run, replay=True, quiet=True).observations)
    teacher = unrolled_sac.planned(learner)
    plans = jax.jit(jax.vmap(lambda s: teacher.decide(LastStep(s, jnp.zeros(1)), None, 4)[0] / 2))(s)
    fresh = init(config, Run(run).spec, jax.random.key(9)).writer
    loss = jax.jit(stages.writing_loss)
    none = jnp.zeros((len(s), 1))
    data = learner.target_models, s, none, plans
    assert float(loss(learner.writer, *data)) < 0.1 * float(loss(fresh, *data))


def test_a_run_is_planned_in_its_models_whatever_it_deploys(run: Path) -> None:
    found = api.load(run, search={"planner": "unrolled"}).policy
    assert isinstance(found, ModelPlanner)
    learner, state = newest_learner(Run(run), 0), LastStep(jnp.array([1.0, 0.0, 0.5]), jnp.zeros(1))
    plan, own = (jax.jit(lambda p=p: p.decide(state, None, 6)[0])() for p in (found, unrolled_sac.planned(learner)))
    np.testing.assert_allclose(plan, own, rtol=1e-5)
    best = api.load(run, search={"planner": "cem", "horizon": 3, "samples": 8, "elites": 2}).policy
    assert jax.jit(lambda: best.decide(state, None, 5)[0])().shape == (5, 1)


def test_delays_are_measured_with_plans_that_begin_where_they_take_effect(run: Path) -> None:
    """Under no delay they are the same; the written policy alone has no model to predict with."""
    with pytest.raises(LegatoError, match="act without a model: leave out `predict_delay`, or plan in the run's model"):
        api.evaluate(run, predict_delay=True, quiet=True)
    search = {"planner": "unrolled"}
    late = api.evaluate(run, search=search, episodes=1, predict_delay=True, quiet=True)
    plain = api.evaluate(run, search=search, episodes=1, quiet=True)
    assert (late.which, plain.which) == ("last+planner=unrolled+predict_delay", "last+planner=unrolled")
    assert late.delay is not None and plain.delay is not None
    np.testing.assert_array_equal(late.delay.returns[:, 0], plain.delay.returns[:, 0])
    assert (late.delay.returns[:, 1:] != plain.delay.returns[:, 1:]).any()  # its models are bad after 60 updates


def test_impossible_options_are_one_line() -> None:
    with pytest.raises(LegatoError, match="execute must be at most the horizon, 4; 5 was given"):
        Config(horizon=4, execute=5)
    with pytest.raises(LegatoError, match="batch_size must be at least members, 5; 4 was given"):
        Config(batch_size=4)
    with pytest.raises(LegatoError, match="write_length"):
        Config(write_length=201)
