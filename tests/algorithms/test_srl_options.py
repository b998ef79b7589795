"""What SRL can do beyond its paper's form: critics that know an action's place, predicted ends, a latent state."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import check_gradients, close, differences, double, noise, same, transitions

from legato.algorithms.srl import srl
from legato.data.replay import Sequences
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models.dynamics import Dynamics, TerminationModel
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP
from legato.nn.optimisation import polyak

SPEC = Spec(3, (-0.2, -0.4), (0.8, 0.1))
PUBLISHED = {"action_units": "environment"}
PLAIN = srl.Config(horizon=3, hidden=8, model_hidden=(8, 6), batch_size=16, gamma=0.9, tau=0.1, **PUBLISHED)
TIMED = replace(PLAIN, critic="time_aware")
LATENT = replace(PLAIN, latent=5)
update = jax.jit(srl.update, static_argnums=0)
sample, greedy = jax.jit(srl.Actor.sample), jax.jit(srl.Actor.greedy, static_argnums=3)
valued, predicted, encode = (jax.jit(of.__call__) for of in (TwinCritic, Dynamics, MLP))
actor_loss, weighed = jax.jit(srl.actor_loss), jax.jit(srl.Teacher.step_weights)
model_loss = jax.jit(srl.model_loss, static_argnums=2)
B = 6


def subsequences(seed: int, length: int, size: int = B, continues: float | None = 1.0) -> Sequences:
    """Transitions that follow one another; every third is cut after its first step, and holds nonsense then."""
    rng = np.random.default_rng(seed)
    steps = transitions(seed, SPEC, length * size, continues)
    steps = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(length, size, *leaf.shape[1:]), steps)
    states = rng.normal(size=(length + 1, size, 3))
    actions = np.concatenate([steps.previous_action[:1], steps.action])
    steps = replace(steps, observation=states[:-1], next_observation=states[1:], previous_action=actions[:-1])
    valid = np.ones((length, size))
    valid[1:, ::3] = 0
    return jax.tree.map(jnp.asarray, Sequences(steps, valid))


@cache
def learner(config: srl.Config) -> srl.Learner:
    """Of random weights, the targets' too; its optimisers have not begun."""
    rng, networks = np.random.default_rng(0), re.compile("actor|(target_|termination_)?(critic|model|encoder)")
    with jax.enable_x64(False):
        shapes = jax.eval_shape(partial(srl.init, config, SPEC), jax.random.key(0))

        def drawn(path: Any, leaf: Any) -> jax.Array:
            if not networks.fullmatch(path[0].name):
                return jnp.asarray(np.zeros(leaf.shape), leaf.dtype)
            units = path[-1].name == "mean_square_delta"
            return jnp.asarray(
                rng.uniform(0.5, 2, leaf.shape) if units else 0.4 * rng.normal(size=leaf.shape), leaf.dtype
            )

        return replace(jax.tree_util.tree_map_with_path(drawn, shapes), alpha=jnp.asarray(np.float32(0.2)))


def batch(config: srl.Config, seed: int, continues: float | None = None) -> srl.Batch:
    """As the training loop draws it."""
    of, ahead = srl.batches(config).lengths
    one, other = (
        transitions(1000 * i + seed, SPEC, 16, continues) if n == 1 else subsequences(1000 * i + seed, n, 16, continues)
        for i, n in enumerate((of, ahead))
    )
    return one, other


def teacher(found: srl.Learner, config: srl.Config) -> srl.Teacher:
    return srl.Teacher(config, found.critic, found.target_model, found.alpha, found.termination_model)


# --- critics that know an action's place in the plan ---


@pytest.mark.usefixtures("x64")
def test_critic_loss_along_a_plan_is_its_equation() -> None:
    """One by one and step by step; what lies behind an episode's end does not count."""
    config, (found, b, eps) = TIMED, double((learner(TIMED), subsequences(9, 3), noise(9, 3, B, 2)))
    loss, mean_q = jax.jit(srl.plan_critic_loss, static_argnums=2)(found.critic, found, config, b, eps)
    b, eps = jax.tree.map(np.asarray, (b, eps))
    total, q_total, count, steps = 0.0, 0.0, 0, b.steps
    for i in range(B):
        z = steps.observation[0, i]
        for k in range(3):
            s_next, a = steps.next_observation[k, i], steps.action[k, i]
            a_next, log_pi = (np.asarray(x)[0] for x in sample(found.actor, s_next, a, eps[k, i][None]))
            q_next = min(map(float, valued(found.target_critic, np.append(s_next, 0.0), a_next)))
            y = steps.reward[k, i] + steps.continues[k, i] * 0.9 * (q_next - float(found.alpha) * log_pi)
            q1, q2 = map(float, valued(found.critic, np.append(z, k / 3), a))
            if b.valid[k, i]:
                total, q_total, count = total + float((q1 - y) ** 2 + (q2 - y) ** 2), q_total + q1, count + 1
            z = predicted(found.target_model, z, a)
    assert 0 < count < 3 * B
    assert loss == pytest.approx(total / count, rel=1e-9)
    assert mean_q == pytest.approx(q_total / count, rel=1e-9)


def test_targets_of_a_plans_critics_send_no_gradient() -> None:
    config = TIMED
    found, b, eps = learner(config), subsequences(9, 3), noise(9, 3, B, 2)

    def loss(parts: Any) -> jax.Array:
        actor, target, model = parts
        moved = replace(found, actor=actor, target_critic=target, target_model=model)
        return srl.plan_critic_loss(found.critic, moved, config, b, eps)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))((found.actor, found.target_critic, found.target_model))):
        np.testing.assert_array_equal(leaf, 0)


def test_places_are_read_in_units_of_the_plan() -> None:
    z = noise(0, 3, B, 3)
    assert srl.with_step_index(z, jnp.arange(3)[:, None], PLAIN) is z
    found = np.asarray(jax.jit(lambda z: srl.with_step_index(z, jnp.arange(3)[:, None], TIMED))(z))
    np.testing.assert_array_equal(found[..., :3], z)
    np.testing.assert_allclose(found[..., 3], np.broadcast_to([[0], [1 / 3], [2 / 3]], (3, B)), atol=1e-7)


# --- targets of several steps ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("continues", [1.0, 0.0])
def test_critic_loss_of_several_steps_is_its_equation(continues: float) -> None:
    """One by one; one that the episode's end, or the buffer's, has cut counts what there is."""
    config = replace(PLAIN, n_step=4)
    found, b, eps = double((learner(PLAIN), subsequences(9, 4, continues=continues), noise(9, 1, B, 2)))
    loss, mean_q = jax.jit(srl.critic_loss, static_argnums=2)(found.critic, found, config, b, eps)
    b, eps = jax.tree.map(np.asarray, (b, eps))
    total, q_total, steps = 0.0, 0.0, b.steps
    for i in range(B):
        y, discount, last = 0.0, 1.0, 0
        for k in range(1 if i % 3 == 0 else 4):
            y, discount, last = y + discount * steps.reward[k, i], discount * 0.9, k
        s_n = steps.next_observation[last, i]
        a, log_pi = (np.asarray(x)[0] for x in sample(found.actor, s_n, steps.action[last, i], eps[:, i]))
        y += continues * discount * (min(map(float, valued(found.target_critic, s_n, a))) - float(found.alpha) * log_pi)
        q1, q2 = map(float, valued(found.critic, steps.observation[0, i], steps.action[0, i]))
        total, q_total = total + float((q1 - y) ** 2 + (q2 - y) ** 2), q_total + q1
    assert loss == pytest.approx(total / B, rel=1e-9)
    assert mean_q == pytest.approx(q_total / B, rel=1e-9)


def test_several_steps_are_drawn_together_for_the_critics_alone() -> None:
    config = replace(PLAIN, n_step=4)
    assert srl.batches(config).lengths == (4, 1)
    found, metrics = update(config, learner(PLAIN), batch(config, 9), jax.random.key(9))
    seen = batch(config, 9)[0]
    assert isinstance(seen, Sequences)
    reward = np.array(seen.steps.reward)
    reward[-1] += 1
    moved = replace(seen, steps=replace(seen.steps, reward=jnp.asarray(reward)))
    other, _ = update(config, learner(PLAIN), (moved, batch(config, 9)[1]), jax.random.key(9))
    assert not same(found.critic, other.critic)  # the last reward of a subsequence is heeded
    assert same(found.model, other.model)
    assert np.isfinite(float(metrics["critic_loss"]))


# --- gradients of every form of teaching, by finite differences ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "config", [TIMED, replace(PLAIN, predict_terminations=True), replace(TIMED, predict_terminations=True)]
)
def test_gradient_of_recall_holds_states_and_ends_still(config: srl.Config) -> None:
    found, b, eps = double((learner(config), transitions(9, SPEC, B), noise(9, 3, B, 2)))
    by = teacher(found, config)
    (loss, recall), g = jax.jit(jax.value_and_grad(srl.actor_loss, has_aux=True))(found.actor, by, b, eps)
    counts = weighed(by, recall)

    def held(actor: srl.Actor) -> jax.Array:
        a, log_pi = actor.sample(b.observation, b.previous_action, eps)
        q = jnp.minimum(*found.critic(srl.with_step_index(recall.states, jnp.arange(3)[:, None], config), a))
        return jnp.sum(jnp.mean(counts * (found.alpha * log_pi - q), axis=1))

    value, (expected,) = check_gradients(held, (found.actor,))
    assert loss == pytest.approx(float(value), rel=1e-9)
    close(g, expected, 1e-9)


@pytest.mark.usefixtures("x64")
def test_gradient_through_time_of_critics_that_know_the_place() -> None:
    found, b, eps = double((learner(TIMED), transitions(9, SPEC, B), noise(9, 3, B, 2)))
    by = teacher(found, TIMED)

    loss, _ = check_gradients(lambda actor: srl.actor_loss_through_time(actor, by, b, eps)[0], (found.actor,))
    z, a, log_pi = (np.asarray(x)[2] for x in actor_loss(found.actor, by, b, eps)[1])
    q = np.minimum(*map(np.asarray, valued(found.critic, np.append(z, np.full((B, 1), 2 / 3), axis=1), a)))
    assert loss == pytest.approx((float(found.alpha) * log_pi - q).mean(), rel=1e-9)


# --- plans that are taught in part ---


class Beyond(TerminationModel):
    """Knows that the episode ends where the first number passes 2."""

    def __init__(self):
        self.mlp = None  # type: ignore[assignment]

    def __call__(self, s: jax.Array, a: jax.Array, s_next: jax.Array) -> jax.Array:
        return jnp.where(s_next[..., 0] > 2, -jnp.inf, jnp.inf)


class Chain(Dynamics):
    """s' = s + 1."""

    def __init__(self):
        self.mlp = None  # type: ignore[assignment]

    def __call__(self, s: jax.Array, a: jax.Array) -> jax.Array:
        return s + 1


class Paid(TwinCritic):
    """Q(s, a) = 10^s."""

    def __init__(self):
        self.q = None  # type: ignore[assignment]

    def __call__(self, s: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = 10 ** s[..., 0] + 0 * a.sum(axis=-1)
        return q, q


def test_recall_stops_at_a_predicted_end() -> None:
    """On a chain that ends beyond 2: from 0 three steps are taught, from 1 two, from 2 one."""
    actor, b = learner(PLAIN).actor, transitions(9, SPEC, 3)
    b = replace(b, observation=jnp.asarray([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]]))
    by = srl.Teacher(PLAIN, Paid(), Chain(), jnp.zeros(()), Beyond())
    loss, recall = actor_loss(actor, by, b, noise(9, 3, 3, 2))
    np.testing.assert_array_equal(weighed(by, recall), [[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    assert loss == pytest.approx(-((1 + 10 + 100) + (10 + 100) + 100) / 3, rel=1e-6)
    on, _ = actor_loss(actor, replace(by, termination_model=None), b, noise(9, 3, 3, 2))
    assert on == pytest.approx(-(111 + 1110 + 11100) / 3, rel=1e-6)


def test_predicted_ends_are_learnt_from_terminations_alone() -> None:
    config = replace(PLAIN, predict_terminations=True)
    found = learner(config)
    going, ending = (update(config, found, batch(config, 9, m), jax.random.key(9)) for m in (1.0, 0.0))
    b = batch(config, 9, 1.0)[1]
    ends = jax.jit(lambda x: jax.nn.sigmoid(x.termination_model(b.observation, b.action, b.next_observation)).mean())
    after = [float(ends(x)) for x, _ in (going, ending)]
    assert after[0] > after[1]
    assert going[1]["ends_loss"] != ending[1]["ends_loss"]
    assert "ends_loss" not in update(PLAIN, learner(PLAIN), batch(PLAIN, 9), jax.random.key(9))[1]


def test_through_time_the_temperature_heeds_the_entropy_that_is_taught() -> None:
    config = replace(PLAIN, teaching="through_time")
    found, b = learner(config), transitions(9, SPEC, B)
    recall = srl.Recall(*(jnp.asarray(np.zeros((3, B, *of))) for of in ((3,), (2,), ())))
    np.testing.assert_array_equal(weighed(teacher(found, config), recall), np.repeat([[0], [0], [1]], B, axis=1))
    key = jax.random.key(9)
    after, metrics = update(config, found, (b, b), key)
    eps = np.asarray(jax.random.normal(key, (4, B, 2)))[1:]
    entropy = -np.asarray(sample(found.actor, b.observation, b.previous_action, eps)[1])[-1].mean()
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert (after.log_alpha < found.log_alpha) == (entropy > -2)


# --- a latent state ---


@pytest.mark.usefixtures("x64")
def test_temporal_consistency_is_its_equation() -> None:
    found, b = double((learner(LATENT), subsequences(9, 4)))
    config = replace(LATENT, model_decay=0.5)
    loss = model_loss((found.model, found.encoder), found.target_encoder, config, b)
    b, total = jax.tree.map(np.asarray, b), 0.0
    for k in range(4):
        wrong = []
        for i in range(B):
            z = encode(found.encoder, b.steps.observation[0, i])
            for j in range(k + 1):
                z = predicted(found.model, z, b.steps.action[j, i])
            ahead = encode(found.target_encoder, b.steps.next_observation[k, i])
            wrong += [np.mean((np.asarray(z) - np.asarray(ahead)) ** 2)] if b.valid[k, i] else []
        total += 0.5**k * np.mean(wrong)
    assert loss == pytest.approx(total / (1 + 0.5 + 0.25 + 0.125), rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradient_of_temporal_consistency() -> None:
    """By finite differences, of model and encoder; the target encoder is held still."""
    found, b = double((learner(LATENT), subsequences(9, 3)))

    def loss(model: Any, encoder: Any, target: Any = found.target_encoder) -> jax.Array:
        return srl.model_loss((model, encoder), target, LATENT, b)

    check_gradients(loss, (found.model, found.encoder))
    still = jax.jit(jax.grad(loss, argnums=2))(found.model, found.encoder, found.target_encoder)
    for leaf in jax.tree.leaves(still):
        np.testing.assert_array_equal(leaf, 0)


def test_in_a_latent_state_everything_happens_to_the_encoding() -> None:
    """An update is that of a learner without encoder whose batches are encoded, but for what the encoder learns."""
    found = learner(LATENT)
    b_q, b_m = batch(LATENT, 9)
    after, _ = update(LATENT, found, (b_q, b_m), jax.random.key(9))
    assert differences(found, after, ("actor", "critic", "model", "encoder", "target_encoder")) == {
        "actor", "critic", "model", "encoder", "target_encoder"
    }  # fmt: skip
    close(after.target_encoder, jax.jit(polyak)(found.target_encoder, after.encoder, LATENT.tau), 1e-7)
    seen_q, seen_m = jax.jit(lambda *both: [srl.encode_batch(found.encoder, each) for each in both])(b_q, b_m)
    blind = replace(found, encoder=None, target_encoder=None)
    same_but, _ = update(LATENT, blind, (seen_q, seen_m), jax.random.key(9))
    close((after.actor, after.critic), (same_but.actor, same_but.critic), 1e-5)


def test_a_latent_policy_encodes_what_it_sees() -> None:
    found = learner(LATENT)
    policy = srl.policy(LATENT, found)
    s, a_prev = noise(1, 3), noise(2, 2)
    memory = replace_memory(policy, s, a_prev)
    assert policy.encoder is not None
    z, decide = encode(policy.encoder, s), jax.jit(lambda key: policy.decide(memory, key, 4)[0])
    np.testing.assert_allclose(decide(None), greedy(found.actor, z, a_prev, 4), atol=1e-6)
    eps = jax.random.normal(jax.random.key(3), (4, 2))
    np.testing.assert_allclose(decide(jax.random.key(3)), sample(found.actor, z, a_prev, eps)[0], atol=1e-6)


def replace_memory(policy: srl.ActionSequence, s: jax.Array, a_prev: jax.Array) -> Any:
    return replace(policy.init_state(()), observation=s, executed=a_prev)


# --- what is asked of the loop, and what is refused ---


def test_sequences_are_asked_for_where_they_are_read() -> None:
    lengths = {
        PLAIN: (1, 1),
        TIMED: (3, 1),
        LATENT: (1, 5),
        replace(TIMED, latent=5): (3, 5),
    }
    assert {config: srl.batches(config).lengths for config in lengths} == lengths


def test_a_latent_state_is_predicted_itself() -> None:
    """Differences are counted in units of observations, of which a latent state has none."""
    wanted = replace(PLAIN, model_target="difference")

    def made(config: srl.Config) -> Any:
        return jax.eval_shape(partial(srl.init, config, SPEC), jax.random.key(0))

    assert made(wanted).model.mean_square_delta is not None
    assert made(replace(wanted, latent=5)).model.mean_square_delta is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"execute": -2}, "execute must be at least -1; -2 was given"),
        ({"model_decay": 0.0}, r"model_decay must lie in \(0, 1\]; 0.0 was given"),
        ({"latent": -1}, "latent must be at least 0; -1 was given"),
        ({"n_step": 0}, "n_step must be at least 1; 0 was given"),
        ({"n_step": 2, "critic": "time_aware"}, "n_step 2 needs critics that know one step; critic time_aware was"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=words):
        replace(PLAIN, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"model_target": "difference", "critic": "time_aware", "predict_terminations": True},
        {"critic": "time_aware", "teaching": "through_time", "actor_every": 2},
        {"latent": 5, "critic": "time_aware", "predict_terminations": True, "cell": "rnn"},
    ],
)
def test_options_go_together(options: dict[str, Any]) -> None:
    """Every part learns, nothing is lost between updates, and an update is a function of its arguments."""
    config = replace(PLAIN, **options)
    before, b = learner(config), batch(config, 9)
    before = replace(before, updates=jnp.full_like(before.updates, 4))
    (after, metrics), (again, _) = (update(config, before, b, jax.random.key(9)) for _ in range(2))
    assert same(after, again)
    assert all(np.isfinite(list(metrics.values())))
    parts = {"actor", "critic", "target_critic", "model", "target_model", "log_alpha"}
    parts |= {"termination_model"} if config.predict_terminations else set()
    parts |= {"encoder", "target_encoder"} if config.latent else set()
    assert differences(before, after, tuple(parts)) == parts
    assert before.optimisers.keys() == after.optimisers.keys()
