"""Decision S4 going on by acting: what the replay holds, where gradients end, which parts move."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tests.algorithms.test_decision_s4 import SMALL, SPEC, made
from tests.learners import close, differences, episode_of, nudged, same

from legato.algorithms.decision_s4 import actor_critic as ac
from legato.algorithms.decision_s4 import decision_s4 as ds4
from legato.data import recurrent_replay
from legato.data import trajectories as logs
from legato.data.recurrent_replay import Episode, RecurrentReplay, StateTransition
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.nn.ensembles import TwinCritic
from legato.nn.ssm import groups

TUNING = ac.Config(hidden=8, layers=1, batch_size=16, learning_rate=1e-3, warmup=1, reward_scale=2.0)
TUNING = replace(TUNING, tau=0.25, average=0.25)
LENGTH, ROWS, ASKED = 5, 8, 4.0

update = jax.jit(ac.update, static_argnums=(0, 4))
create = jax.jit(ac.replay.create, static_argnums=(0, 1, 2, 3, 4))
remember = jax.jit(ac.replay.add, static_argnums=0)
refreshed = jax.jit(ac.replay.renew)
replay_actions = jax.jit(ac.replay_actions)
critic_loss, actor_loss = (jax.jit(loss, static_argnums=2) for loss in (ac.critic_loss, ac.actor_loss))
roll_back, on_new_best = (jax.jit(of, static_argnums=0) for of in (ac.roll_back, ac.on_new_best))
q_values = jax.jit(ac.q_values, static_argnums=1)


@cache
def begun(tuning: ac.Config = TUNING, base: ds4.Config = SMALL) -> ac.Learner:
    """A fine-tuning about to begin, from a policy whose systems remember a handful of steps."""
    return jax.jit(ac.init, static_argnums=(0, 1))(tuning, base, ds4.policy(base, made(base)), jax.random.key(0))


@cache
def played(seed: int = 0, steps: int = LENGTH, terminated: bool = True) -> Episode:
    """An episode as the loop hands it on. The padding is NaN where nothing may read it."""
    environment = episode_of(seed, SPEC, steps + 1)
    pad = ROWS - steps
    observations = np.pad(np.asarray(environment.observation), [(0, pad - 1), (0, 0)])
    actions = np.pad(np.asarray(environment.executed)[1:], [(0, pad), (0, 0)])
    rewards = np.pad(np.asarray(environment.reward)[1:], (0, pad), constant_values=np.nan)
    fields = (jnp.asarray(steps), jnp.asarray(terminated), jnp.asarray(ASKED))
    return Episode(*map(jnp.asarray, (observations, actions, rewards)), *fields)


def replay(
    tuning: ac.Config = TUNING, base: ds4.Config = SMALL, *episodes: Episode
) -> tuple[RecurrentReplay, dict[str, Any]]:
    stored, metrics = create(tuning, base, SPEC, 20, 8), {}
    for episode in episodes or (played(),):
        stored, metrics = remember(tuning, begun(tuning, base), stored, episode)
    return stored, metrics


def rows(stored: RecurrentReplay, count: int = LENGTH + 1) -> StateTransition:
    return transitions_at(stored, np.arange(count))


transitions_at = jax.jit(recurrent_replay.transition_at)
units = jax.jit(lambda statistics, actions: statistics.normalise_actions(actions))


# --- the replay ---


def test_three_steps_by_hand() -> None:
    """Which action came before which observation, and which the critic is told of."""
    episode = played(steps=3)
    unit = np.asarray(units(begun().statistics, episode.actions))
    found = rows(replay(TUNING, SMALL, episode)[0], 4)
    np.testing.assert_array_equal(found.observation, episode.observations[:4])
    np.testing.assert_allclose(found.previous, [0 * unit[0], unit[0], unit[1], unit[2]], rtol=1e-6)
    np.testing.assert_allclose(found.action[:3], unit[:3], rtol=1e-6)
    r = np.asarray(episode.rewards)
    np.testing.assert_array_equal(found.reward[:3], r[:3])
    np.testing.assert_allclose(found.ret, ASKED - np.array([0, r[0], r[0] + r[1], r[0] + r[1] + r[2]]), rtol=1e-5)
    assert found.continues[:3].tolist() == [1, 1, 0]
    assert found.valid.tolist() == [1, 1, 1, 0]


def test_where_time_ran_out_the_critic_looks_further() -> None:
    assert rows(replay(TUNING, SMALL, played(terminated=False))[0]).continues.tolist() == [1.0] * (LENGTH + 1)


@jax.jit
def lived(policy: Any, environment: Any) -> tuple[jax.Array, jax.Array]:
    """The systems before every step of an episode, and the return-to-go at it."""

    def turn(state: Any, step: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        after = policy.observe(state, step)
        return after, (ravel_pytree(state.systems)[0], after.return_to_go)

    return jax.lax.scan(turn, policy.init_state(jnp.asarray(ASKED)), environment)[1]


@pytest.mark.parametrize("core", ["s4d", "s5", "s4"])
def test_stored_states_are_those_that_the_policy_had(core: Any) -> None:
    """Stepped by the policy itself, at every step of the episode and after its last."""
    base = replace(SMALL, core=core)
    found = rows(replay(TUNING, base)[0])
    systems, returns = lived(ds4.policy(base, made(base)), episode_of(0, SPEC, LENGTH + 1))
    np.testing.assert_allclose(found.state, systems, atol=2e-6)
    np.testing.assert_allclose(found.ret, returns, atol=1e-5)


def test_relabelled_returns_are_what_was_earned() -> None:
    episode, tuning = played(), replace(TUNING, relabel=True)
    found = rows(replay(tuning)[0])
    earned = np.cumsum(np.asarray(episode.rewards)[:LENGTH][::-1])[::-1]
    np.testing.assert_allclose(found.ret, [*earned, 0], atol=1e-5)
    assert np.abs(found.state[1:] - rows(replay()[0]).state[1:]).max() > 1e-3  # states that belong to these returns


def test_the_gap_is_between_recurrence_and_convolution() -> None:
    """Rounding as long as both are one network; a state that is not forgotten shows."""
    assert float(replay()[1]["gap"]) < 1e-5
    learner = begun()
    broken = jax.tree.map(
        lambda leaf, group: nudged(leaf) if group == "core" else leaf, learner.actor, groups(learner.actor)
    )
    given = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), np.ones(4, np.float32)
    walk = jax.jit(ac.stored_states.walk)(broken, given)[1]
    whole = np.asarray(jax.jit(ds4.Network.__call__)(learner.actor, *given))
    assert np.abs(np.asarray(walk) @ np.asarray(learner.actor.out) - whole).max() > 1e-3


EPISODES = ((0, 5), (1, 4), (2, 7), (3, 6))  # seeds and steps: 26 rows, the second episode is rows 6 to 10
RING = 18  # its first two are overwritten, and all of the first episode


def ring_of(learner: ac.Learner) -> RecurrentReplay:
    stored = create(TUNING, SMALL, SPEC, RING, 8)
    for seed, steps in EPISODES:
        stored, _ = remember(TUNING, learner, stored, played(seed, steps))
    return stored


def test_while_nothing_is_learnt_a_refresh_changes_nothing() -> None:
    stored = ring_of(begun())
    close(refreshed(begun(), stored), stored, 1e-6)


def test_a_refresh_renews_what_a_changed_actor_left_behind() -> None:
    """States are those of episodes played anew; where a beginning is gone, the first that is left stays."""
    changed = ac.Learner(**{**vars(begun()), "actor": nudged(begun().actor)})
    before, expected = ring_of(begun()), ring_of(changed)
    found = refreshed(changed, before)
    whole = np.arange(11, 26) % RING
    close(found.rows[whole], expected.rows[whole], 1e-5)
    np.testing.assert_array_equal(found.rows[8], before.rows[8])
    assert np.abs(np.asarray(found.rows - before.rows)[9]).max() > 1e-3


# --- learning ---


def moment(seed: int, size: int = 6) -> StateTransition:
    rng = np.random.default_rng(seed)
    state = ac.stored_states.state_size(SMALL, SPEC)
    shapes: list[tuple[int, ...]] = [(size, 3), (size, 2), (size, 2), (size,), (size,)]
    fields = [rng.normal(size=shape) for shape in shapes]
    fields[1], fields[2] = np.tanh(fields[1]), np.tanh(fields[2])
    flags = [rng.integers(0, 2, size).astype(float), (np.arange(size) != 2).astype(float)]
    return StateTransition(*(jnp.asarray(f, jnp.float32) for f in (*fields, *flags, rng.normal(size=(size, state)))))


def test_one_step_from_a_stored_state_is_the_policys_step() -> None:
    learner, now = begun(), moment(0)
    found = replay_actions(learner.actor, learner, now)
    policy = ds4.policy(SMALL, made(SMALL))
    _, unravel = ravel_pytree(learner.actor.start())

    @jax.jit
    def stepped(now: StateTransition) -> jax.Array:
        statistics = learner.statistics
        given = statistics.normaliser(now.observation), now.previous, statistics.scale_return(now.ret)
        return policy.network.step(policy.entry, policy.discrete, unravel(now.state), *given)[1]

    for i in range(3):
        read = np.asarray(stepped(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], now)))
        np.testing.assert_allclose(found[i], np.tanh(read @ np.asarray(policy.network.out)), atol=1e-6)


def test_gradients_end_at_the_stored_state() -> None:
    """The weights have one, as they act in this step; the state has none."""
    learner, now = begun(), moment(0)

    def total(actor: ds4.Network, state: jax.Array) -> jax.Array:
        return ac.replay_actions(actor, learner, replace_state(now, state)).sum()

    weights, given = jax.jit(jax.grad(total, argnums=(0, 1)))(learner.actor, now.state)
    np.testing.assert_array_equal(given, np.zeros_like(given))
    assert all(np.abs(leaf).max() > 0 for leaf in (weights.blocks[0].system.c, weights.blocks[0].system.log_decay))


def replace_state(moment: StateTransition, state: jax.Array) -> StateTransition:
    return StateTransition(**{**vars(moment), "state": state})


valued = jax.jit(TwinCritic.__call__)


def judged(critic: TwinCritic, learner: ac.Learner, m: StateTransition, action: Any) -> list[np.ndarray]:
    """C_1 and C_2 of normalised observations, scaled returns and actions."""
    mean, deviation = (np.asarray(x) for x in vars(learner.statistics.normaliser).values())
    returns = np.asarray(m.ret) / np.asarray(learner.statistics.scale)
    read = np.concatenate([(np.asarray(m.observation) - mean) / deviation, returns[:, None]], -1)
    return [np.asarray(q, np.float64) for q in valued(critic, read, action)]


def test_the_critics_loss_is_the_equation() -> None:
    """In NumPy, and without the row that is no step."""
    learner, now, after = begun(), moment(0), moment(1)
    learner = learner.__class__(
        **{**vars(learner), "target_actor": nudged(learner.actor), "target_critic": nudged(learner.critic)}
    )
    discount = jnp.asarray([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    noise = jnp.asarray(np.random.default_rng(2).normal(size=(6, 2)), jnp.float32)
    found, value = critic_loss(learner.critic, learner, TUNING, now, after, discount, noise)
    a = np.clip(np.asarray(replay_actions(learner.target_actor, learner, after)) + np.asarray(noise), -1, 1)
    y = np.asarray(now.reward) / 2.0 + np.asarray(now.continues) * np.asarray(discount) * np.minimum(
        *judged(learner.target_critic, learner, after, a)
    )
    q_1, q_2 = judged(learner.critic, learner, now, now.action)
    there = np.asarray(now.valid) == 1
    assert float(found) == pytest.approx(float((((q_1 - y) ** 2 + (q_2 - y) ** 2)[there]).mean()), rel=1e-4)
    assert float(value) == pytest.approx(float(q_1[there].mean()), rel=1e-4)


def test_an_early_end_counts_the_return_to_go_that_is_lost() -> None:
    """Where the environment ended the episode, and only as far as something was left to earn."""
    learner, now, after = begun(), moment(0), moment(1)
    after = StateTransition(**{**vars(after), "ret": jnp.asarray([3.0, -2.0, 1.0, 4.0, -1.0, 2.0])})
    discount, noise = np.full(6, 0.9, np.float32), np.zeros((6, 2), np.float32)
    lost = 0.5 * (1 - np.asarray(now.continues)) * np.float32([3, 0, 1, 4, 0, 2])
    assert float(lost.sum()) > 0
    paid = StateTransition(**{**vars(now), "reward": jnp.asarray(np.asarray(now.reward) - lost)})
    given = now, after, discount, noise
    found, _ = critic_loss(learner.critic, learner, replace(TUNING, termination_penalty=0.5), *given)
    expected, _ = critic_loss(learner.critic, learner, TUNING, paid, after, discount, noise)
    without, _ = critic_loss(learner.critic, learner, TUNING, *given)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(found) != pytest.approx(float(without), rel=1e-3)


def test_the_actors_loss_is_the_equation() -> None:
    learner, now = begun(), moment(0)
    learner = ac.Learner(**{**vars(learner), "reference_actor": nudged(learner.actor)})
    there, of = np.asarray(now.valid) == 1, (learner.actor, learner.reference_actor)
    action, reference = (np.asarray(replay_actions(actor, learner, now)) for actor in of)
    q = np.minimum(*judged(learner.critic, learner, now, action))[there]
    apart = np.square(action - reference)[there].mean()
    assert float(actor_loss(learner.actor, learner, TUNING, now)[0]) == pytest.approx(-q.mean(), rel=1e-4)
    found, moved = actor_loss(learner.actor, learner, replace(TUNING, regularisation_weight=3.0), now)
    assert float(found) == pytest.approx(-q.mean() / np.abs(q).mean() + 3 * apart, rel=1e-4)
    assert float(moved) == pytest.approx(apart, rel=1e-4)
    learner = roll_back(TUNING, learner, learner.actor)  # once: the regularisation is doubled
    found, _ = actor_loss(learner.actor, learner, replace(TUNING, regularisation_weight=3.0), now)
    assert float(found) == pytest.approx(-q.mean() / np.abs(q).mean() + 6 * apart, rel=1e-4)
    short = replace(TUNING, min_regularisation_scale=0.4)
    assert float(roll_back(short, learner, learner.actor).regularisation_scale) == pytest.approx(0.4)
    learner = on_new_best(TUNING, learner, jnp.asarray(True))
    assert (
        float(learner.regularisation_scale)
        == float(on_new_best(TUNING, learner, jnp.asarray(True)).regularisation_scale)
        == 1.0
    )


def test_a_critic_may_be_blind_to_the_return() -> None:
    blind = replace(TUNING, critic_reads_return=False)
    learner, now = begun(blind), moment(0)
    other = StateTransition(**{**vars(now), "ret": now.ret + 3})
    action = now.action
    assert same(*(q_values(learner.critic, blind, learner.statistics, m, action) for m in (now, other)))
    sees = begun()
    assert not same(*(q_values(sees.critic, TUNING, sees.statistics, m, action) for m in (now, other)))


NAMES = ("actor", "target_actor", "critic", "target_critic", "reference_actor", "average", "statistics")


@pytest.mark.parametrize(
    ("joint", "moved"),
    [(False, {"critic", "target_critic"}), (True, {"actor", "average", "target_actor", "critic", "target_critic"})],
)
def test_critics_learn_first_and_alone(joint: bool, moved: set[str]) -> None:
    learner, metrics = update(TUNING, begun(), replay()[0], jax.random.key(0), joint)
    assert differences(begun(), learner, NAMES) == moved
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_frozen_core_stays_to_the_bit_and_a_free_one_moves() -> None:
    for freeze in (False, True):
        tuning = replace(TUNING, freeze_core=freeze)
        learner, _ = update(tuning, begun(tuning), replay()[0], jax.random.key(0), True)
        moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), begun().actor, learner.actor)
        kinds = jax.tree.leaves(groups(begun().actor))
        core = [flag for flag, kind in zip(jax.tree.leaves(moved), kinds, strict=True) if kind == "core"]
        assert any(core) != freeze
        assert bool(moved.out) and bool(moved.blocks[0].system.c)


def went(old: Any, new: Any) -> Any:
    """A quarter of the way from one to the other."""
    return jax.tree.map(lambda a, b: np.asarray(a) + 0.25 * (np.asarray(b) - np.asarray(a)), old, new)


def test_targets_follow_slowly() -> None:
    slow, _ = update(TUNING, begun(), replay()[0], jax.random.key(0), True)
    close(slow.target_critic, went(begun().critic, slow.critic), 1e-6)


def test_what_is_deployed_follows_the_actor_and_can_be_taken_back() -> None:
    learner, _ = update(TUNING, begun(), replay()[0], jax.random.key(0), True)
    close(learner.average, went(begun().actor, learner.actor), 1e-6)
    assert same(ac.policy(learner, jnp.asarray(1.0)).network, learner.average)
    assert same(ac.explorer(learner, jnp.asarray(1.0), jnp.asarray(0.1)).policy.network, learner.actor)  # type: ignore[attr-defined]
    back = roll_back(TUNING, learner, begun().actor)
    assert all(same(part, begun().actor) for part in (back.actor, back.target_actor, back.average))
    assert same(back.optimisers["actor"], begun().optimisers["actor"])
    assert not same(learner.optimisers["actor"], begun().optimisers["actor"])
    assert same(back.optimisers["critic"], learner.optimisers["critic"])


def test_the_critics_take_several_steps_before_the_actor_does() -> None:
    """As many as are asked for, on batches of their own, and the actor follows the last of them."""
    tuning, stored, key = replace(TUNING, critics_per_actor=3), replay()[0], jax.random.key(0)
    together, _ = update(tuning, begun(), stored, key, True)
    assert int(together.updates) == 3
    critic, actor = begun(), update(TUNING, begun(), stored, key, True)[0].actor
    critic_step = jax.jit(ac.critic_step, static_argnums=0)
    for k in jax.random.split(jax.random.split(key)[0], 3):
        critic, _ = critic_step(TUNING, critic, stored, k)
    close(together.critic, critic.critic, 1e-5)
    close(together.target_critic, critic.target_critic, 1e-5)
    assert not same(together.actor, actor) and not same(together.actor, begun().actor)


def test_hard_targets_are_copied_whenever_their_time_was_among_the_steps() -> None:
    """That of the critics at the very step, every fourth here."""
    hard, learner = replace(TUNING, tau=0.0, target_every=4, critics_per_actor=3), begun()
    copied, of_critics = [], []
    for i in range(4):
        learner, _ = update(hard, learner, replay()[0], jax.random.key(i), True)
        copied.append(same(learner.target_actor, learner.actor))
        of_critics.append((same(learner.target_critic, begun().critic), same(learner.target_critic, learner.critic)))
    assert copied == [False, True, True, True]  # after steps 3, 6, 9 and 12
    assert of_critics == [(True, False), (False, False), (False, False), (False, True)]


def logged_episodes(lengths: list[int], returns: list[float]) -> Trajectories:
    """Episodes that are paid at their first steps."""
    return logs.from_episodes(
        {
            "observations": np.zeros((steps, 3)),
            "actions": np.zeros((steps, 2)),
            "rewards": np.eye(1, steps)[0] * ret,
            "terminations": np.zeros(steps, bool),
            "truncations": np.eye(1, steps, steps - 1)[0] > 0,
        }
        for steps, ret in zip(lengths, returns, strict=True)
    )


def test_logged_episodes_of_all_returns_are_begun_with() -> None:
    """Of twelve episodes of 5 steps the best three, and of the other nine every third; the best comes last."""
    data = logged_episodes([5] * 12, returns=[3, 11, 7, 0, 1, 9, 10, 2, 4, 8, 5, 6])
    found = ac.initial_episodes(replace(TUNING, offline_steps=30), data)
    assert logs.returns(data)[found].tolist() == [2, 5, 8, 9, 10, 11]
    assert len(ac.initial_episodes(TUNING, data)) == 0
    assert sorted(ac.initial_episodes(replace(TUNING, offline_steps=60), data)) == list(range(12))
    uneven = logged_episodes([9, 1, 1, 1], returns=[3, 2, 1, 0])
    assert uneven.lengths[ac.initial_episodes(replace(TUNING, offline_steps=8), uneven)].sum() <= 8


# --- phases, targets, acting ---


def test_phases_come_one_after_another() -> None:
    tuning = replace(TUNING, start_steps=10, critic_steps=30, critic_updates=7, updates=3, noise_over=20)
    tuning = replace(tuning, noise=(0.5, 0.3, 0.1))
    assert [ac.phase(tuning, step)[:2] for step in (0, 10, 29, 30)] == [(0, False), (7, False), (7, False), (3, True)]
    assert [ac.phase(tuning, step).noise for step in (29, 30, 40, 50, 90)] == pytest.approx([0.5, 0.3, 0.2, 0.1, 0.1])


def test_the_anchor_is_the_best_policy_so_far_or_stays_where_it_was() -> None:
    learner = ac.Learner(**{**vars(begun()), "average": nudged(begun().actor)})
    yes, no = jnp.asarray(True), jnp.asarray(False)
    assert same(on_new_best(TUNING, learner, yes).reference_actor, learner.average)
    assert same(on_new_best(TUNING, learner, no).reference_actor, begun().actor)
    assert same(on_new_best(replace(TUNING, regularise_towards="start"), learner, yes).reference_actor, begun().actor)


def test_the_target_runs_ahead_of_the_best_and_never_below_the_first() -> None:
    first = np.array([100.0, 100.0, -100.0])
    asks, tries = ac.targets(replace(TUNING, target_increment=0.1), first, np.array([95.0, 50.0, -200.0]), np.ones(3))
    np.testing.assert_allclose(asks, [104.5, 100, -100])
    less, _ = ac.targets(replace(TUNING, target_increment=0.4), first, np.array([95.0, 50.0, -100.0]), np.full(3, 0.25))
    np.testing.assert_allclose(less, [104.5, 100, -90])
    np.testing.assert_array_equal(asks, tries)


def test_what_is_saved_is_a_policy_of_decision_s4() -> None:
    found = ac.policy(begun(), jnp.asarray(7.0))
    assert jax.tree.structure(found) == jax.tree.structure(ds4.policy(SMALL, made(SMALL)))
    assert float(found.statistics.target) == 7.0 and float(begun().statistics.target) != 7.0


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    check = partial(ac.check, TUNING, limit=None)
    check(SMALL, SPEC)
    with pytest.raises(LegatoError, match="actions that are numbers"):
        check(SMALL, Spec.discrete(3, 4))
    with pytest.raises(LegatoError, match="without history"):
        check(replace(SMALL, history=False), SPEC)
    with pytest.raises(LegatoError, match="delayed return"):
        ac.check(replace(TUNING, relabel=True), replace(SMALL, delay_rewards=True), SPEC, None)
    with pytest.raises(LegatoError, match="termination_penalty 0 with relabel"):
        ac.check(replace(TUNING, relabel=True, termination_penalty=0.1), SMALL, SPEC, None)
