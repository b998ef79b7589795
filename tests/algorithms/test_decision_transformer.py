"""The Decision Transformer: who sees what, its loss by hand, and policies that compute what was trained."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax
from tests.data.test_trajectories import raw
from tests.learners import acted, episode_of, facts_of, plus, same, size, target_returns_to_go, windows_of

from legato.algorithms.decision_transformer import decision_transformer as dt
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.trajectories import About, trajectories
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError
from legato.nn import optimisation
from legato.training.settings import preset

SPEC, CHOICE = Spec(3, (-0.2, -0.4), (0.8, 0.1)), Spec.discrete(3, 4)
K, T = 4, 11  # steps of a window, and of an episode that is longer than what a policy reads
SMALL = dt.Config(context=K, layers=1, heads=2, size=16, dropout=0.0, episode_length=32, warmup=0, learning_rate=1e-3)
TINY = replace(SMALL, heads=1, size=8)
TAUGHT = replace(SMALL, size=32, unused=True, weight_decay=1e-2, warmup=10)
CACHE = replace(SMALL, layers=2, decoding="cache")
NAMES = ("returns", "observations", "actions", "timesteps", "mask")
POSITIONS = pytest.mark.parametrize("positions", ["timestep", "rotary", "none"])

init = jax.jit(dt.init, static_argnums=(0, 1))
update = jax.jit(dt.update, static_argnums=0)
_forward = jax.jit(dt.Network.__call__, static_argnames="last")
loss = jax.jit(dt.loss)


@cache
def made(config: dt.Config, spec: Spec = SPEC, seed: int = 0) -> dt.Learner:
    """A learner with weights larger than at the beginning, so that attention is far from even."""
    shapes, rng = jax.eval_shape(partial(dt.init, config, spec), jax.random.key(seed)), np.random.default_rng(seed)

    def drawn(path: Any, leaf: Any) -> jax.Array:
        return jnp.asarray((path[-1].name == "scale") + 0.3 * rng.normal(size=leaf.shape), jnp.float32)

    network = jax.tree_util.tree_map_with_path(drawn, shapes.network)
    optimiser = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.optimiser)
    return dt.Learner(network, facts_of(spec), optimiser, jnp.zeros((), jnp.int32))


def inputs(spec: Spec = SPEC, length: int = K, valid: int | None = None, seed: int = 0) -> dict[str, Any]:
    """One window as the network reads it."""
    rng, valid = np.random.default_rng(seed), length if valid is None else valid
    actions = rng.uniform(-1, 1, (length, 2)) if spec.choices is None else rng.integers(0, spec.choices, length)
    found = {
        "returns": rng.normal(size=length),
        "observations": rng.normal(size=(length, spec.observation_size)),
        "actions": actions,
        "timesteps": 5 + np.arange(length),
        "mask": np.arange(length) < valid,
    }
    kinds = {"i": np.int32, "f": np.float32, "b": bool}
    return {name: value.astype(kinds[value.dtype.kind]) for name, value in found.items()}


def changed(given: dict[str, Any], name: str, at: Any) -> dict[str, Any]:
    x = given[name].copy()
    x[at] = (x[at] + 1) % 4 if x.dtype == np.int32 else x[at] + 1.5
    return {**given, name: x}


def normalised(statistics: Any, observations: Any) -> np.ndarray:
    return (np.asarray(observations) - np.asarray(statistics.normaliser.mean)) / np.asarray(
        statistics.normaliser.deviation
    )


def forward(network: dt.Network, *, last: bool = False, **given: Any) -> np.ndarray:
    return np.asarray(_forward(network, *(jnp.asarray(given[name]) for name in NAMES), last=last))


# --- who sees what ---


@pytest.mark.parametrize(
    ("config", "spec"),
    [(SMALL, SPEC), (replace(SMALL, positions="rotary"), SPEC), (CACHE, SPEC), (SMALL, CHOICE)],
)
def test_nothing_is_seen_before_it_happens(config: dt.Config, spec: Spec) -> None:
    """To the bit: a return or an observation moves no earlier step, an action not its own step either."""
    network, given = made(config, spec).network, inputs(spec)
    before = np.asarray(forward(network, **given))
    for name in ("returns", "observations", "actions"):
        for j in range(K):
            after = np.asarray(forward(network, **changed(given, name, j)))
            moved = np.abs(after - before).max(axis=1)
            first = j + 1 if name == "actions" else j
            np.testing.assert_array_equal(moved[:first], 0, err_msg=name)
            assert (moved[first:] > 1e-4).all(), (name, j)


@POSITIONS
def test_what_fills_a_window_up_is_not_seen(positions: Any) -> None:
    """Whatever stands there, and whichever side it stands on: a policy fills on the left, training on the right."""
    network, given = made(replace(SMALL, positions=positions)).network, inputs(valid=2)
    plain = forward(network, **given)[:2]
    assert np.isfinite(forward(network, **given)).all()
    for name in ("returns", "observations", "actions", "timesteps"):
        there = forward(network, **changed(given, name, slice(2, None)))[:2]
        np.testing.assert_array_equal(there, plain, err_msg=name)
    left = {name: np.roll(value, 2, axis=0) for name, value in given.items()}
    np.testing.assert_allclose(forward(network, **left)[2:], plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "config", [SMALL, replace(SMALL, positions="rotary"), replace(SMALL, decoding="cache", context=2)]
)
def test_from_what_is_attended_to_follows_what_the_head_gives(config: dt.Config) -> None:
    network, given = made(config).network, inputs(length=4)
    array = [jnp.asarray(given[name]) for name in NAMES]
    weights = np.asarray(jax.jit(dt.Network.attention)(network, *array))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    back = np.arange(12)[:, None] - np.arange(12)
    sees = (back >= 0) & (back < (6 if config.decoding == "cache" else 12))
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(sees, weights.shape))

    def rebuilt(network: dt.Network, weights: jax.Array) -> jax.Array:
        x = network.triples(*array[:-1]).reshape(12, -1)
        for block, weight in zip(network.trunk.blocks, weights, strict=True):
            _, _, v = block.project(x, jnp.arange(12))
            x = block.after(x, jnp.einsum("hqk,khd->qhd", weight, v).reshape(x.shape))
        return network.head(network.trunk.norm(x)[1::3])

    found = jax.jit(rebuilt)(network, jnp.asarray(weights))
    np.testing.assert_allclose(found, forward(network, **given), atol=2e-5)


def test_the_loss_does_not_read_what_fills_windows_up() -> None:
    learner, batch = made(SMALL), windows_of(0, SPEC, [4, 1, 2], K, first=3)
    plain = loss(learner.network, learner.statistics, batch)
    for name in ("observations", "actions", "returns_to_go", "timesteps"):
        x = getattr(batch, name)
        padded = ~np.asarray(batch.mask).reshape(*batch.mask.shape, *(1,) * (x.ndim - 2))
        other = jnp.asarray((np.asarray(x) + 3 * padded).astype(x.dtype))
        assert loss(learner.network, learner.statistics, replace(batch, **{name: other})) == plain, name
    with_more = windows_of(0, SPEC, [4, 1, 3], K, first=3)
    assert loss(learner.network, learner.statistics, with_more) != plain


def test_a_token_knows_its_time_by_the_table_alone() -> None:
    """In one layer a read-out sums over the steps before: their order shows only where positions do."""
    given, order = inputs(), [2, 0, 1, 3]
    for positions, by_time, by_place in (("timestep", True, False), ("none", False, False), ("rotary", False, True)):
        network = made(replace(SMALL, positions=positions)).network
        plain = forward(network, **given)
        later = forward(network, **{**given, "timesteps": given["timesteps"] + 3})
        assert (np.abs(later - plain).max() > 1e-3) == by_time
        mixed = forward(network, **{name: value[order] for name, value in given.items()})
        assert (np.abs(mixed[-1] - plain[-1]).max() > 1e-4) == by_place
        if not by_place:
            np.testing.assert_allclose(mixed[-1], plain[-1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("history", [True, False])
def test_reading_the_last_step_alone_is_reading_them_all(history: bool) -> None:
    network = made(replace(SMALL, history=history)).network
    for valid in (K, 2):
        given = {name: np.roll(value, -valid, axis=0) for name, value in inputs(valid=valid).items()}  # on the left
        np.testing.assert_allclose(
            forward(network, **given, last=True)[0], forward(network, **given)[-1], rtol=0, atol=2e-6
        )


@pytest.mark.parametrize("decoding", ["window", "cache"])
@pytest.mark.parametrize("control", ["returns", "history"])
def test_a_control_does_not_read_what_it_lacks(control: str, decoding: Any) -> None:
    """In training and acting: neither the return asked for nor rewards, or nothing from before the present step."""
    learner, given = made(replace(SMALL, decoding=decoding, **{control: False})), inputs()
    policy = dt.policy(replace(SMALL, decoding=decoding, **{control: False}), learner)
    episode, plain = episode_of(0, SPEC, T), forward(learner.network, **given)
    act = acted(policy, episode, () if control == "returns" else 4.0)
    if control == "returns":
        np.testing.assert_array_equal(forward(learner.network, **changed(given, "returns", 1)), plain)
        np.testing.assert_array_equal(acted(policy, replace(episode, reward=plus(episode.reward, 1))), act)
        return
    for name in ("returns", "observations", "actions"):
        after = forward(learner.network, **changed(given, name, 1))
        np.testing.assert_array_equal(np.delete(after, 1, axis=0), np.delete(plain, 1, axis=0), err_msg=name)
        assert (np.abs(after[1] - plain[1]).max() > 1e-4) == (name != "actions")
    other = acted(policy, replace(episode, executed=jnp.zeros_like(episode.executed)), 4.0)
    np.testing.assert_array_equal(other, act)
    other = acted(policy, replace(episode, observation=plus(episode.observation, 1, 3)), 4.0)
    np.testing.assert_array_equal(np.delete(other, 3, axis=0), np.delete(act, 3, axis=0))
    # What is left is the network at this step alone.
    statistics, asked = learner.statistics, target_returns_to_go(4.0, episode, 1.0)
    for t in (0, 6):
        given = forward(
            learner.network,
            returns=(asked[t : t + 1] / 2.5).astype(np.float32),
            observations=normalised(statistics, np.asarray(episode.observation)[t : t + 1]),
            actions=np.zeros((1, 2), np.float32),
            timesteps=np.array([t], np.int32),
            mask=np.ones(1, bool),
        )[0]
        np.testing.assert_allclose(act[t], units(np.tanh(given)), rtol=0, atol=2e-6)


def units(given: np.ndarray) -> np.ndarray:
    """From [-1, 1] to the bounds of `SPEC`."""
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    return low + (np.asarray(given) + 1) / 2 * (high - low)


# --- policies compute what was trained ---


@jax.jit
def begun(policy: Any, episode: Any, command: Any) -> Any:
    """Memory after the first step."""
    return policy.observe(policy.init_state(command), jax.tree.map(lambda leaf: leaf[0], episode))


def fed(learner: dt.Learner, episode: Any, target: float, gamma: float = 1.0) -> dict[str, Any]:
    """An episode as the network reads it: the returns asked for, and at each step the action executed after it."""
    statistics, spec = learner.statistics, learner.statistics.spec
    executed = np.concatenate([np.asarray(episode.executed)[1:], np.zeros((1, spec.action_size))])
    low, high = np.array(spec.low), np.array(spec.high)
    actions = executed[:, 0].astype(np.int32) if spec.choices is not None else 2 * (executed - low) / (high - low) - 1
    mean, deviation = map(np.asarray, (statistics.normaliser.mean, statistics.normaliser.deviation))
    return {
        "returns": (target_returns_to_go(target, episode, gamma) / 2.5).astype(np.float32),
        "observations": (np.asarray(episode.observation) - mean) / deviation,
        "actions": actions.astype(np.int32 if spec.choices is not None else np.float32),
        "timesteps": np.arange(len(executed), dtype=np.int32),
        "mask": np.ones(len(executed), bool),
    }


def window_before(given: dict[str, Any], t: int) -> dict[str, Any]:
    """The last K steps up to t, filled up on the right."""
    begin = max(0, t + 1 - K)
    steps = begin + np.arange(K)
    found = {name: value[np.minimum(steps, t)] for name, value in given.items()}
    return {**found, "mask": steps <= t}


@pytest.mark.parametrize("positions", ["timestep", "rotary"])
def test_the_policy_encodes_its_last_steps_anew(positions: Any) -> None:
    """At every step of an episode almost three times as long as the window, with returns discounted on the way."""
    config = replace(SMALL, layers=2, positions=positions, gamma=0.9)
    learner, episode = made(config), episode_of(0, SPEC, T)
    given = fed(learner, episode, 4.0, 0.9)
    expected = [np.tanh(forward(learner.network, **window_before(given, t))[min(t, K - 1)]) for t in range(T)]
    np.testing.assert_allclose(acted(dt.policy(config, learner), episode, 4.0), units(expected), rtol=0, atol=2e-6)


@POSITIONS
def test_the_cache_computes_what_was_trained_with_a_band(positions: Any) -> None:
    config = replace(CACHE, positions=positions)
    learner, episode = made(config), episode_of(0, SPEC, T)
    expected = units(np.tanh(forward(learner.network, **fed(learner, episode, 4.0))))
    found = acted(dt.policy(config, learner), episode, 4.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    # With two layers the first step is still felt at step K, where a band and a window differ.
    other = acted(dt.policy(config, learner), replace(episode, observation=plus(episode.observation, 1, 0)), 4.0)
    assert np.abs(other[K] - found[K]).max() > 1e-5
    np.testing.assert_array_equal(other[2 * K :], found[2 * K :])


def test_the_band_is_of_three_tokens_a_step() -> None:
    """In one layer, an observation is felt for K steps; an action, a token nearer to what follows it, as long."""
    network, given = made(replace(CACHE, layers=1)).network, inputs(length=T)
    plain = forward(network, **given)
    for name, first in (("observations", 2), ("actions", 3)):
        moved = np.abs(forward(network, **changed(given, name, 2)) - plain).max(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(moved), first + np.arange(K))


@pytest.mark.parametrize("config", [SMALL, CACHE])
def test_choices_are_read_back_as_they_were_executed(config: dt.Config) -> None:
    learner, episode = made(config, CHOICE), episode_of(0, CHOICE, T)
    given = fed(learner, episode, 4.0)
    logits = forward(learner.network, **given)
    if config is SMALL:
        logits = [forward(learner.network, **window_before(given, t))[min(t, K - 1)] for t in range(T)]
    found = acted(dt.policy(config, learner), episode, 4.0)
    assert (found.shape, found.dtype) == ((T, 1), jnp.float32)
    np.testing.assert_array_equal(found[:, 0], np.argmax(logits, axis=1))
    assert len(set(found[:, 0].tolist())) > 1


def test_choices_are_drawn_as_likely_as_they_are() -> None:
    learner, episode = made(SMALL, CHOICE), episode_of(0, CHOICE, 1)
    policy = dt.policy(SMALL, learner)
    memory = begun(policy, episode, 4.0)
    logits = np.asarray(forward(learner.network, **window_before(fed(learner, episode, 4.0), 0))[0])
    drawn = jax.jit(jax.vmap(lambda key: policy.decide(memory, key, 1)[0][0, 0]))(
        jax.random.split(jax.random.key(1), 4000)
    )
    seen = np.bincount(np.asarray(drawn).astype(int), minlength=4)
    assert stats.chisquare(seen, 4000 * softmax(logits.astype(np.float64))).pvalue > 0.01


@pytest.mark.parametrize("config", [SMALL, CACHE])
def test_the_return_to_go_is_what_was_asked_less_what_was_earned(config: dt.Config) -> None:
    """Never computed anew. A late reward does not change it, because it comes when nothing can be done."""
    episode = episode_of(3, SPEC, T)

    @partial(jax.jit, static_argnums=(0, 1))
    def after(gamma: float, delay_rewards: bool, learner: dt.Learner) -> Any:
        policy = dt.policy(replace(config, gamma=gamma, delay_rewards=delay_rewards), learner)
        state = policy.init_state(6.0)
        state, _ = jax.lax.scan(lambda state, step: (policy.observe(state, step), None), state, episode)
        return state.returns[-1] if config is SMALL else state.return_to_go

    learner = made(config)
    earned = np.asarray(episode.reward, np.float64)
    assert after(1.0, False, learner) == pytest.approx(6 - earned.sum(), abs=1e-5)
    assert after(0.9, False, learner) == pytest.approx(target_returns_to_go(6.0, episode, 0.9)[-1], rel=1e-5)
    assert after(1.0, True, learner) == 6.0


@pytest.mark.parametrize("config", [SMALL, CACHE])
def test_the_return_asked_for_is_the_datas_where_nobody_says_which(config: dt.Config) -> None:
    learner, episode = made(config), episode_of(0, SPEC, 3)
    policy = dt.policy(config, learner)
    by_default = acted(policy, episode)
    np.testing.assert_array_equal(by_default, acted(policy, episode, float(learner.statistics.target)))
    assert np.abs(by_default - acted(policy, episode, 0.0)).max() > 1e-4


@pytest.mark.parametrize("config", [SMALL, CACHE])
def test_one_action_is_held_at_every_length(config: dt.Config) -> None:
    policy = dt.policy(config, made(config))
    state = begun(policy, episode_of(0, SPEC, 1), ())
    (one, after), (eight, _) = (jax.jit(partial(policy.decide, state, None, n))() for n in (1, 8))
    assert eight.shape == (8, 2)
    np.testing.assert_array_equal(eight, np.repeat(one, 8, axis=0))
    assert same(after, state)


def test_without_a_history_no_cache_is_carried() -> None:
    config = replace(CACHE, history=False)
    assert isinstance(dt.policy(CACHE, made(CACHE)), dt.Caching)
    policy = dt.policy(config, made(config))
    assert isinstance(policy, dt.Reencoding)
    assert policy.context == 1


# --- the loss and the update ---


def test_loss_is_the_mean_square_in_units_of_the_bounds() -> None:
    learner, batch = made(SMALL), windows_of(0, SPEC, [4, 1, 2], K, first=3)
    statistics, total = learner.statistics, []
    for i, n in enumerate((4, 1, 2)):
        unit = 2 * (np.asarray(batch.actions)[i] - SPEC.low) / np.subtract(SPEC.high, SPEC.low) - 1
        given = forward(
            learner.network,
            returns=np.asarray(batch.returns_to_go)[i] / np.float32(2.5),
            observations=normalised(statistics, batch.observations)[i],
            actions=unit.astype(np.float32),
            timesteps=np.asarray(batch.timesteps)[i],
            mask=np.asarray(batch.mask)[i],
        )
        total += list(((np.tanh(given) - unit) ** 2)[:n].mean(axis=1))
    assert len(total) == 7
    assert loss(learner.network, statistics, batch) == pytest.approx(np.mean(total), rel=1e-5)


def test_loss_of_choices_is_the_cross_entropy() -> None:
    learner, batch = made(SMALL, CHOICE), windows_of(0, CHOICE, [4, 1, 2], K)
    statistics, total = learner.statistics, []
    for i, n in enumerate((4, 1, 2)):
        logits = forward(
            learner.network,
            returns=np.asarray(batch.returns_to_go)[i] / np.float32(2.5),
            observations=normalised(statistics, batch.observations)[i],
            actions=np.asarray(batch.actions)[i],
            timesteps=np.asarray(batch.timesteps)[i],
            mask=np.asarray(batch.mask)[i],
        )
        total += [-log_softmax(np.asarray(logits[t], np.float64))[int(batch.actions[i, t])] for t in range(n)]
    assert loss(learner.network, statistics, batch) == pytest.approx(np.mean(total), rel=1e-5)


@pytest.fixture(scope="module")
def batch() -> Window:
    """Eight windows of random actions."""
    return windows_of(0, SPEC, [4] * 8, K)


@pytest.fixture(scope="module")
def warm() -> dt.Learner:
    """As after four updates: Adam's moments are set, the step size has risen half-way."""
    learner = made(TAUGHT)
    optimiser = jax.tree.map(lambda x: jnp.asarray(np.int32(4)) if x.dtype == jnp.int32 else x, learner.optimiser)
    variance = jax.tree.map(lambda leaf: jnp.asarray(np.full(leaf.shape, 1e-4)), adam(learner).nu)
    return replace(learner, optimiser=eqx.tree_at(lambda state: state[1][0].nu, optimiser, variance))


def adam(learner: dt.Learner) -> Any:
    return learner.optimiser[1][0]  # type: ignore[index]


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_one_batch_can_be_learnt_by_heart(batch: Window) -> None:
    """An MSE below 1e-3 within a few hundred steps of 1e-3."""
    learner = init(TAUGHT, SPEC, jax.random.key(0), facts_of(SPEC))
    first = loss(learner.network, learner.statistics, batch)
    for _ in range(400):
        learner, metrics = update(TAUGHT, learner, batch, jax.random.key(0))
    assert first > 0.2
    assert metrics["loss"] < 1e-3


def test_an_update_moves_the_network_and_nothing_else(warm: dt.Learner, batch: Window) -> None:
    before = jax.tree.map(np.array, warm)
    (one, metrics), (two, _) = (update(TAUGHT, warm, batch, jax.random.key(0)) for _ in range(2))
    assert same(one, two)
    assert same(before, warm)
    assert same(one.statistics, warm.statistics)
    assert (one.updates, warm.updates) == (1, 0)
    assert all(not same(a, b) for a, b in zip(*map(jax.tree.leaves, (one.network, warm.network)), strict=True))
    assert metrics["loss"] == pytest.approx(float(loss(warm.network, warm.statistics, batch)), rel=1e-5)


def test_an_update_in_groups_is_the_update(warm: dt.Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one window is longer than another."""
    batch, found = windows_of(0, SPEC, [4, 1, 3, 2, 4, 1, 1, 2], K), []
    for cached in (10**6, 3 * batch.mask.shape[-1]):
        monkeypatch.setattr(optimisation, "CACHED", cached)
        found.append(jax.jit(partial(dt.update, TAUGHT))(warm, batch, jax.random.key(0))[1])
    assert all(float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-5) for name in found[0])


def test_the_gradient_is_the_losses_and_is_clipped(warm: dt.Learner, batch: Window) -> None:
    """Its direction is in Adam's mean, which began at zero; along it the loss rises by the norm that is reported."""
    after, metrics = update(TAUGHT, warm, batch, jax.random.key(0))
    mean = adam(after).mu
    assert metrics["gradient_norm"] > 0.25
    assert np.linalg.norm(flat(mean)) == pytest.approx(0.1 * 0.25, rel=1e-4)

    def moved(by: float) -> Any:
        return lambda p, m: jnp.asarray(np.asarray(p) + by * np.asarray(m) / 0.025)

    up, down = (loss(jax.tree.map(moved(by), warm.network, mean), warm.statistics, batch) for by in (0.01, -0.01))
    assert (up - down) / 0.02 == pytest.approx(float(metrics["gradient_norm"]), rel=0.02)


def test_decay_is_of_every_parameter_and_warm_up_is_on_a_line(warm: dt.Learner, batch: Window) -> None:
    """The fifth of ten updates of a warm-up, by AdamW's equations."""
    after, _ = update(TAUGHT, warm, batch, jax.random.key(0))
    mean, variance = flat(adam(after).mu) / (1 - 0.9**5), flat(adam(after).nu) / (1 - 0.999**5)
    old = flat(warm.network)
    expected = old - 1e-3 * 5 / 10 * (mean / (np.sqrt(variance) + 1e-8) + 1e-2 * old)
    np.testing.assert_allclose(flat(after.network), expected, rtol=0, atol=3e-7)
    assert 1e-3 * 5 / 10 * 1e-2 * np.abs(old).max() > 3e-6  # the decay is seen
    assert not np.any(adam(after).mu.unused.word)


def test_bfloat16_is_close_and_keeps_parameters_whole(warm: dt.Learner, batch: Window) -> None:
    """Eight bits of mantissa: a loss within three per cent, and a gradient of nearly the same direction."""
    config = replace(TAUGHT, dtype="bfloat16")
    (half, of_half), (whole, of_whole) = (update(c, warm, batch, jax.random.key(0)) for c in (config, TAUGHT))
    assert {leaf.dtype for leaf in jax.tree.leaves((half.network, of_half))} == {jnp.dtype("float32")}
    assert of_half["loss"] != of_whole["loss"]
    for name in ("loss", "gradient_norm"):
        assert of_half[name] == pytest.approx(float(of_whole[name]), rel=0.03), name
    a, b = (flat(adam(learner).mu) for learner in (half, whole))
    assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.99


def test_dropout_is_on_in_training_alone() -> None:
    learner, batch = made(replace(TINY, dropout=0.3)), windows_of(0, SPEC, [4, 2], K)
    dry = loss(learner.network, learner.statistics, batch)
    wet = [float(loss(learner.network, learner.statistics, batch, jax.random.key(i))) for i in range(2)]
    assert len({float(dry), *wet}) == 3
    none = made(TINY)
    assert loss(none.network, none.statistics, batch, jax.random.key(0)) == loss(none.network, none.statistics, batch)
    policy, episode = dt.policy(TINY, learner), episode_of(0, SPEC, 3)
    np.testing.assert_array_equal(acted(policy, episode), acted(dt.policy(TINY, none), episode))


# --- sizes, data ---


def test_parameter_counts_are_the_official_networks() -> None:
    """Hopper, as published; the heads and the word that it never uses are left out of what is deployed."""
    config, _ = preset("paper", "dt", "hopper-medium-v2")
    assert isinstance(config, dt.Config)
    spec = Spec(11, (-1.0,) * 3, (1.0,) * 3)
    whole = jax.eval_shape(partial(dt.init, replace(config, unused=True), spec), jax.random.key(0))
    assert size(whole.network) == 727_695
    without = 727_695 - (128 * 11 + 11) - (128 + 1) - 128
    plain = jax.eval_shape(partial(dt.init, config, spec), jax.random.key(0))
    assert size(plain.network) == without
    for learner in (whole, plain):
        assert size(dt.policy(config, learner).acting.network) == without


def test_a_window_or_twice_the_band() -> None:
    assert dt.batches(dt.Config()) == BatchSpec(64, 20)
    assert dt.batches(dt.Config(decoding="cache", batch_size=7, context=5)) == BatchSpec(4, 10)
    assert dt.plan_length(dt.Config()) == 1


def test_data_that_cannot_be_learnt_from_are_refused() -> None:
    data = trajectories(**raw([5, 2]), about=About("logs"))
    assert dt.select_data(dt.Config(episode_length=5), data) is data
    with pytest.raises(
        LegatoError, match=r"^logs has an episode of 5 steps, this model a table of 4: raise `episode_length`"
    ):
        dt.select_data(dt.Config(episode_length=4), data)
    assert dt.select_data(dt.Config(episode_length=4, positions="rotary"), data) is data
    with pytest.raises(
        LegatoError, match=r"^logs has no rewards: it can be imitated \(bc; dt and ds4 with `returns=False`"
    ):
        dt.select_data(dt.Config(), replace(data, rewards=None))
    found = dt.select_data(dt.Config(returns=False), replace(data, rewards=None)).rewards
    np.testing.assert_array_equal(found, np.zeros(7))  # type: ignore[arg-type]


def test_delayed_rewards_are_paid_at_the_end() -> None:
    data = trajectories(**raw([5, 2]))
    late = dt.select_data(dt.Config(delay_rewards=True), data)
    assert late.rewards is not None
    np.testing.assert_allclose(late.rewards[[4, 6]], logs.returns(data), rtol=1e-6)
    np.testing.assert_array_equal(np.delete(late.rewards, [4, 6]), 0)
    np.testing.assert_allclose(logs.returns_to_go(late), np.repeat(logs.returns(data), [5, 2]), rtol=1e-6)
