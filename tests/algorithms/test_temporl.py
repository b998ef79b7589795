"""TempoRL: targets of skips against brute force, the behaviour against TD3, lengths as they are chosen and played."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import actions_of, close, transitions

from legato.algorithms.td3 import td3
from legato.algorithms.temporl import double_dqn, skips, temporl
from legato.data import replay
from legato.data.replay import Sequences, as_sequences
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.policy import Step
from legato.rollout import Clock
from legato.training import online
from legato.training.clocks import clock_of, collecting, training_clock
from legato.training.settings import Settings

J, GAMMA = 4, 0.9
SPEC, CHOICES = Spec(3, (-0.2, -0.4), (0.8, 0.1)), Spec.discrete(3, 4)
CONFIG = temporl.Config(max_skip=J, hidden=8, batch_size=16, gamma=GAMMA, tau=0.5)
init, update = jax.jit(temporl.init, static_argnums=(0, 1)), jax.jit(temporl.update, static_argnums=0)
KINDS = pytest.mark.parametrize("spec", [SPEC, CHOICES], ids=["numbers", "choices"])


# --- what is learnt of skips ---

# (actions, does the environment end it?): the second is cut where it stops, and the last goes on.
EPISODES = (((1, 1, 1, 2, 2, 2), True), ((3, 3, 0, 0, 0), False), ((0, 0, 0, 0, 0, 0, 0), True), ((2, 2, 2), False))


def value(number: int) -> float:
    """Of an observation, V."""
    return 10.0 + number


def skips_of(episodes: Any) -> dict[int, dict[int, float]]:
    """The length and target of each skip within the episodes, by the number of the observation that it begins with.

    Observations are numbered over all episodes, those after an episode's last step too; the n-th step is paid n.
    """
    found, first = {}, 0
    for actions, ends in episodes:
        for start in range(len(actions)):
            here: dict[int, float] = {}
            for length in range(1, J + 1):
                held = actions[start : start + length]
                if set(held) != {actions[start]}:
                    break
                paid = sum(GAMMA**i * (first + start + i) for i in range(len(held)))
                if start + length < len(actions) or (start + length == len(actions) and not ends):
                    here[length] = paid + GAMMA**length * value(first + start + length)
                elif ends:  # in the last step of these, or before
                    here[length] = paid
            found[first + start] = here
        first += len(actions) + 1
    return found


def kept(episodes: Any) -> replay.Replay:
    """The episodes in a replay that has gone round."""
    spec, rows, first = Spec.discrete(1, 4), [], 0
    for actions, ends in episodes:
        for t, a in enumerate(actions):
            before = 0 if t == 0 else actions[t - 1]
            over = ends and t == len(actions) - 1
            fields = ([first + t], [a], [before], first + t, [first + t + 1], 1.0 - over)
            rows.append(replay.pack(*(np.array(field, np.float32) for field in fields)))
        first += len(actions) + 1
    empty, found = replay.create(spec, len(rows)), np.array(rows, np.float32)
    padded = np.concatenate([np.zeros((3, found.shape[1]), np.float32), found])
    return replay.add(empty, jnp.asarray(padded), jnp.asarray(len(padded)))


def test_targets_of_all_skips_are_those_of_brute_force() -> None:
    """Of every length from every step: up to another action, an end, beyond it, and a cut, where the value is asked."""

    @jax.jit
    def drawn(rows: replay.Replay) -> Any:
        stretch = replay.sequences(rows, jax.random.key(0), 300, J)
        values = 10.0 + stretch.steps.next_observation[..., 0]
        return stretch.steps.observation[0, :, 0], *skips.skip_targets(stretch, GAMMA, values)

    first, y, mask = map(np.asarray, drawn(kept(EPISODES)))
    expected, seen = skips_of(EPISODES), set()
    for start, targets, known in zip(first.astype(int), y.T, mask.T, strict=True):
        lengths = np.flatnonzero(known) + 1
        assert lengths.tolist() == list(expected[start]), start
        np.testing.assert_allclose(targets[known], list(expected[start].values()), rtol=1e-5)
        seen.add(start)
    assert seen == set(expected)
    assert len(expected[0]) == 3 and len(expected[3]) == len(expected[5]) == J  # other action; ends within; at once
    assert list(expected[7]) == [1, 2] and list(expected[11]) == [1]  # cut


def stretches(seed: int, spec: Spec, size: int = 16) -> Sequences:
    """Random ones, of which a half holds its action for a while."""
    rng = np.random.default_rng(seed)
    steps = [transitions(seed + 20 * k, spec, size, continues=1.0) for k in range(J)]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float32) for leaf in leaves]), *steps)
    actions = actions_of(spec, rng, J, size).reshape(J, size, -1).astype(np.float32)
    held = np.arange(J)[:, None] < rng.integers(1, J + 1, size)
    actions = np.where(held[..., None], actions[:1], actions)
    return jax.tree.map(jnp.asarray, Sequences(replace(stacked, action=actions), np.ones((J, size), np.float32)))


@KINDS
def test_an_update_learns_skips_by_the_value_of_the_behaviour(spec: Spec) -> None:
    """The loss that is told, by the behaviour as it has become; and that skips teach it nothing."""
    learner, stretch = init(CONFIG, spec, jax.random.key(0)), stretches(1, spec)
    steps = jax.tree.map(lambda leaf: leaf[0], stretches(2, spec).steps)
    for i in range(4):  # with the last, the targets of numbers move, too
        before = learner
        learner, metrics = update(CONFIG, learner, (steps, stretch), jax.random.key(i))
    module: Any = temporl.deterministic_actor_critic if spec.choices is None else double_dqn
    scaled = jax.jit(partial(replay.scale_actions, spec=spec))(stretch).steps
    read = jax.jit(lambda network, s, a: network(s, a))
    q = np.asarray(read(before.skip, scaled.observation[0], scaled.action[0]))
    v = np.asarray(jax.jit(module.target_value)(learner.behaviour, stretch.steps.next_observation))
    errors, actions = [], np.asarray(stretch.steps.action)
    for row in range(16):
        total = 0.0
        for j in range(J):
            if (actions[j, row] != actions[0, row]).any():
                break
            total += GAMMA**j * float(stretch.steps.reward[j, row])
            errors.append((q[row, j] - total - GAMMA ** (j + 1) * v[j, row]) ** 2)
    assert 16 < len(errors) < 16 * J
    assert float(metrics["skip_loss"]) == pytest.approx(np.mean(errors), rel=1e-4)
    other, _ = update(CONFIG, before, (steps, stretches(5, spec)), jax.random.key(3))
    close(other.behaviour, learner.behaviour, 1e-6)


def test_the_behaviour_is_td3() -> None:
    config = td3.Config(hidden=8, batch_size=16, gamma=GAMMA, tau=0.5)
    learner = init(CONFIG, SPEC, jax.random.key(0))
    behaviour = learner.behaviour
    for i in range(2):
        steps = transitions(i, SPEC, 16)
        learner, said = update(CONFIG, learner, (steps, stretches(i, SPEC)), jax.random.key(i))
        behaviour, heard = jax.jit(td3.update, static_argnums=0)(config, behaviour, (steps,), jax.random.key(i))
        close({name: said[name] for name in heard}, heard, 1e-5)
    close(learner.behaviour, behaviour, 1e-5)


def test_the_behaviour_of_choices_is_double_dqn() -> None:
    """The online network picks the next choice, the target values it; ends and the choice that was taken count."""
    learner = init(CONFIG, CHOICES, jax.random.key(0)).behaviour
    other = init(CONFIG, CHOICES, jax.random.key(7)).behaviour.q
    learner = eqx.tree_at(lambda each: each.target_q, learner, other)
    b = transitions(3, CHOICES, 16)
    b = replace(b, action=jnp.asarray(np.rint(np.asarray(b.action)), jnp.float32))
    loss, mean_q = jax.jit(double_dqn.loss, static_argnums=2)(learner.q, learner, GAMMA, b)
    read = jax.jit(lambda network, s: network(s))
    q, q_next, target = (np.asarray(read(net, s)) for net, s in ((learner.q, b.observation),
                         (learner.q, b.next_observation), (other, b.next_observation)))  # fmt: skip
    assert (q_next.argmax(1) != target.argmax(1)).any()
    taken, errors = [], []
    for i in range(16):
        y = float(b.reward[i]) + float(b.continues[i]) * GAMMA * target[i, q_next[i].argmax()]
        taken.append(q[i, int(b.action[i, 0])])
        errors.append((taken[-1] - y) ** 2)
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(mean_q) == pytest.approx(np.mean(taken), rel=1e-4)


def test_of_a_single_step_a_skip_is_worth_the_action() -> None:
    """J = 1: stretches are transitions, and y_1 is the target of one step."""
    b = transitions(4, SPEC, 16)
    y, mask = skips.skip_targets(as_sequences(b), GAMMA, jnp.ones((1, 16)))
    assert np.asarray(mask).all()
    np.testing.assert_allclose(y[0], np.asarray(b.reward) + GAMMA * np.asarray(b.continues), rtol=1e-5)


# --- acting ---


def with_values(learner: temporl.Learner, values: Any) -> temporl.Learner:
    """The same with skips of these values, whatever the state and the action."""
    last = learner.skip.network.layers[-1]
    weight, bias = jnp.zeros_like(last.weight), jnp.asarray(np.array(values, np.float32))
    where = lambda each: (each.skip.network.layers[-1].weight, each.skip.network.layers[-1].bias)  # noqa: E731
    return eqx.tree_at(where, learner, (weight, bias))


@pytest.mark.parametrize(("values", "length"), [((1, 3, 2, 0), 2), ((3, 1, 3, 1), 3), ((0, 0, 0, 0), 4)])
def test_a_greedy_policy_takes_the_best_length_of_equal_ones_the_longest(values: Any, length: int) -> None:
    for spec in (SPEC, CHOICES):
        policy = temporl.policy(CONFIG, with_values(init(CONFIG, spec, jax.random.key(0)), values))
        step = Step(jnp.ones(3), jnp.zeros(()), jnp.zeros(spec.action_size), jnp.asarray(True))
        plan, state, later = after_decision(policy, step)
        np.testing.assert_array_equal(plan, np.repeat(plan[:1], 3, axis=0))
        assert (int(policy.interval(state)), int(policy.interval(later))) == (length, length)


@jax.jit
def after_decision(policy: temporl.SkipAction, step: Step) -> Any:
    """A plan of three actions, the memory after it, and that after the next step."""
    plan, state = policy.decide(policy.observe(policy.init_state(()), step), None, 3)
    return plan, state, policy.observe(state, step)


def drawn(config: temporl.Config, spec: Spec, count: int = 4000) -> tuple[np.ndarray, np.ndarray, float]:
    """Actions and lengths by so many keys, and the greedy action; the best length is 2."""
    policy = temporl.policy(config, with_values(init(CONFIG, spec, jax.random.key(0)), (1, 3, 2, 0)))
    state = policy.init_state(())

    @jax.jit
    def decide(keys: jax.Array) -> Any:
        plans, states = jax.vmap(lambda key: policy.decide(state, key, 1))(keys)
        return plans[:, 0, 0], states.length, policy.decide(state, None, 1)[0][0, 0]

    actions, lengths, greedy = decide(jax.random.split(jax.random.key(1), count))
    return np.asarray(actions), np.asarray(lengths), float(greedy)


@KINDS
def test_lengths_are_explored_apart_from_actions(spec: Spec) -> None:
    """Shares by a fifth of random draws among four lengths; and actions stay greedy."""
    config = replace(CONFIG, skip_epsilon=0.2, epsilon=0.0, noise=0.0)
    actions, lengths, greedy = drawn(config, spec)
    np.testing.assert_allclose(np.bincount(lengths, minlength=5)[1:] / 4000, [0.05, 0.85, 0.05, 0.05], atol=0.02)
    np.testing.assert_allclose(actions, greedy, atol=1e-6)


def test_choices_are_explored_by_epsilon_and_numbers_by_noise() -> None:
    actions, lengths, greedy = drawn(replace(CONFIG, skip_epsilon=0.0, epsilon=0.4), CHOICES)
    shares = np.bincount(actions.astype(int), minlength=4) / 4000
    np.testing.assert_allclose(np.delete(shares, int(greedy)), 0.1, atol=0.02)
    assert set(lengths.tolist()) == {2}
    actions, lengths, greedy = drawn(replace(CONFIG, skip_epsilon=0.0, noise=0.05), SPEC)
    assert actions.std() == pytest.approx(0.05 * 0.5, rel=0.1) and set(lengths.tolist()) == {2}


def test_before_learning_actions_and_lengths_are_uniform() -> None:
    learner = with_values(init(CONFIG, SPEC, jax.random.key(0)), (1, 3, 2, 0))
    explorer = temporl.explorer(CONFIG, learner, SPEC, 0, True)
    state = explorer.init_state(())

    @jax.jit
    def decide(keys: jax.Array) -> Any:
        plans, states = jax.vmap(lambda key: explorer.decide(state, key, 2))(keys)
        return plans, jax.vmap(explorer.interval)(states)

    plans, lengths = map(np.asarray, decide(jax.random.split(jax.random.key(1), 2000)))
    np.testing.assert_allclose(np.bincount(lengths)[1:] / 2000, 0.25, atol=0.04)
    np.testing.assert_array_equal(plans[:, 0], plans[:, 1])
    np.testing.assert_allclose(np.histogram(plans[:, 0, 0], 4, (-0.2, 0.8))[0] / 2000, 0.25, atol=0.04)
    assert abs(np.corrcoef(plans[:, 0, 0], lengths)[0, 1]) < 0.1
    with pytest.raises(LegatoError, match="no greedy action"):
        explorer.decide(state, None, 1)


# --- as the loop takes it ---


def test_it_collects_and_is_played_when_its_policies_say_in_turns_of_one_size() -> None:
    expected = Clock((1, J), by="policy")
    assert collecting("temporl", CONFIG) == training_clock("temporl", CONFIG) == expected
    assert online.turn("temporl", CONFIG, Settings(env="Pendulum-v1", environments=3)) == (3 * J, 3 * J)
    assert clock_of("temporl", CONFIG, None) == clock_of("temporl", CONFIG, "policy") == expected
    assert clock_of("temporl", CONFIG, 6, 2) == Clock(6, 2)


def test_a_skip_longer_than_an_episode_is_refused() -> None:
    settings = Settings(env="Pendulum-v1", max_episode_steps=12)
    assert online.check("temporl", temporl.Config(max_skip=12), settings).observation_size == 3
    with pytest.raises(LegatoError) as problem:
        online.check("temporl", temporl.Config(max_skip=13), settings)
    assert str(problem.value) == "a plan of 13 steps is longer than an episode of 'Pendulum-v1' (12 steps)"


@pytest.mark.parametrize("options", [{"max_skip": 0}, {"skip_epsilon": 1.1}, {"epsilon": -0.1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LegatoError, match=next(iter(options))):
        temporl.Config(**options)
