"""Decision S4: training by convolution and acting by recurrence are one network; who sees what; loss and optimiser."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tests.data.test_trajectories import raw
from tests.learners import acted, close, episode_of, facts_of, plus, same, size, target_returns_to_go, windows_of

from legato.algorithms.decision_s4 import decision_s4 as ds4
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.trajectories import About, trajectories
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError
from legato.nn.ssm import groups

SPEC, CHOICE = Spec(3, (-0.2, -0.4), (0.8, 0.1)), Spec.discrete(3, 4)
T = 11
SMALL = ds4.Config(layers=1, channels=4, order=6, embedding=5, dropout=0.0, length=T)
# Step sizes of 1e-3 and 5e-3, a tenth of that in the first update, and a decay that cannot be overlooked.
TAUGHT = replace(SMALL, learning_rate=1e-3, core_learning_rate=5e-3, weight_decay=3.0, warmup=10, clip=1e6)

init = jax.jit(ds4.init, static_argnums=(0, 1))
update = jax.jit(ds4.update, static_argnums=0)
loss = jax.jit(ds4.loss, static_argnums=2)
_forward = jax.jit(ds4.Network.__call__)


@cache
def made(config: ds4.Config, spec: Spec = SPEC, seed: int = 0) -> ds4.Learner:
    """A learner whose systems remember a handful of steps, so that a short episode tells them apart."""
    shapes, rng = jax.eval_shape(partial(ds4.init, config, spec), jax.random.key(seed)), np.random.default_rng(seed)

    def drawn(path: Any, leaf: Any) -> jax.Array:
        kinds = {"log_decay": (-2, 0), "frequency": (0, 3), "log_dt": (-2, -0.5), "scale": (0.5, 1.5)}
        if (name := path[-1].name) in kinds:
            return jnp.asarray(rng.uniform(*kinds[name], leaf.shape), jnp.float32)
        return jnp.asarray(0.6 * rng.normal(size=leaf.shape), jnp.float32)

    network = jax.tree_util.tree_map_with_path(drawn, shapes.network)
    optimiser = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.optimiser)
    return ds4.Learner(network, facts_of(spec), optimiser, jnp.zeros((), jnp.int32))


def inputs(length: int = T) -> dict[str, np.ndarray]:
    """An episode as the network reads it."""
    rng = np.random.default_rng(0)
    found = {
        "observations": rng.normal(size=(length, 3)),
        "previous": rng.uniform(-1, 1, (length, 2)),
        "returns": rng.normal(size=length),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def forward(network: ds4.Network, given: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(_forward(network, *map(jnp.asarray, given.values())))


def fed(learner: ds4.Learner, episode: Any, target: float, gamma: float = 1.0) -> dict[str, np.ndarray]:
    """An episode that a policy lived through, as the network reads it: zero before the first action."""
    spec = learner.statistics.spec
    executed, low, high = np.asarray(episode.executed), np.array(spec.low), np.array(spec.high)
    if spec.choices is None:
        previous = 2 * (executed - low) / (high - low) - 1
    else:
        previous = np.eye(spec.choices)[executed[:, 0].astype(int)]
    previous[0] = 0
    found = {
        "observations": normalised(learner, episode.observation),
        "previous": previous,
        "returns": target_returns_to_go(target, episode, gamma) / 2.5,
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def normalised(learner: ds4.Learner, observations: Any) -> np.ndarray:
    """Observations as the network reads them."""
    mean, deviation = (np.asarray(x) for x in vars(learner.statistics.normaliser).values())
    return (np.asarray(observations) - mean) / deviation


def units(given: np.ndarray) -> np.ndarray:
    """From [-1, 1] to the bounds of `SPEC`."""
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    return low + (given + 1) / 2 * (high - low)


# --- one network, two ways to compute it ---


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, layers=2),
        replace(SMALL, core="s4", gamma=0.9),
        replace(SMALL, core="s5", norm=True),
        replace(SMALL, discretisation="bilinear", residual=False, norm=True),
    ],
    ids=["s4d", "s4", "s5", "bilinear"],
)
def test_acting_is_the_convolution_step_by_step(config: ds4.Config) -> None:
    """Over a whole episode; and of parameters that have changed since, not of those from before."""
    learner, other, episode = made(config), made(config, seed=1), episode_of(0, SPEC, T)
    found = []
    for it in (learner, other):
        expected = units(np.tanh(forward(it.network, fed(it, episode, 4.0, config.gamma))))
        found.append(acted(ds4.policy(config, it), episode, 4.0))
        np.testing.assert_allclose(found[-1], expected, rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01
    late = acted(ds4.policy(config, learner), replace(episode, observation=plus(episode.observation, 1, 0)), 4.0)
    assert np.abs(late - found[0])[T - 1].max() > 1e-4  # the first step is remembered to the end


def test_the_embeddings_and_the_layer_that_reads_them_are_one_layer() -> None:
    network, given = made(SMALL).network, inputs()
    parts = tuple(map(jnp.asarray, (given["observations"], given["previous"], given["returns"][:, None])))
    embeddings = (network.observation, network.action, network.ret)

    @jax.jit
    def both(parts: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        apart = jnp.concatenate([layer(part) for layer, part in zip(embeddings, parts, strict=True)], -1)
        return network.entry()(jnp.concatenate(parts, -1)), network.into(apart)

    np.testing.assert_allclose(*both(parts), rtol=0, atol=1e-5)


def test_an_update_reaches_the_policy(taught: ds4.Learner, batch: Window) -> None:
    """Whose systems were discretised before: it is made anew."""
    learner, episode = taught, episode_of(0, SPEC, T)
    before = acted(ds4.policy(TAUGHT, learner), episode, 4.0)
    for i in range(10):
        learner, _ = update(TAUGHT, learner, batch, jax.random.key(i))
    after = acted(ds4.policy(TAUGHT, learner), episode, 4.0)
    expected = units(np.tanh(forward(learner.network, fed(learner, episode, 4.0))))
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-4
    for block in learner.network.blocks:  # stable, whatever was learnt
        assert np.hypot(*map(np.asarray, block.system.discrete().a)).max() < 1


def test_choices_are_read_back_as_they_were_executed() -> None:
    learner, episode = made(SMALL, CHOICE), episode_of(0, CHOICE, T)
    logits = forward(learner.network, fed(learner, episode, 4.0))
    found = acted(ds4.policy(SMALL, learner), episode, 4.0)
    np.testing.assert_array_equal(found[:, 0], np.argmax(logits, axis=1))
    assert len(set(found[:, 0].tolist())) > 1


def test_without_a_squash_actions_are_cut_at_their_bounds() -> None:
    config = replace(SMALL, squash=False)
    learner, episode = made(config), episode_of(0, SPEC, T)
    given = forward(learner.network, fed(learner, episode, 4.0))
    found = acted(ds4.policy(config, learner), episode, 4.0)
    np.testing.assert_allclose(found, units(np.clip(given, -1, 1)), rtol=0, atol=1e-5)
    assert (np.abs(given) > 1).any()
    assert (np.abs(given) < 1).any()


def test_there_is_no_action_before_the_first() -> None:
    """Zero in units of the bounds, which zero in the environment's units is not; nothing that is said there is read."""
    policy, episode = ds4.policy(SMALL, made(SMALL)), episode_of(0, SPEC, T)
    plain = acted(policy, episode, 4.0)
    said = replace(episode, executed=plus(episode.executed, 0.1, 0), reward=plus(episode.reward, 9, 0))
    np.testing.assert_array_equal(acted(policy, said, 4.0), plain)


def test_what_is_remembered_does_not_grow() -> None:
    """2 layers of 4 channels of 3 complex modes, at any length of episodes."""
    for length in (T, 10 * T):
        config = replace(SMALL, layers=2, length=length)
        policy = ds4.policy(config, made(config))
        state = policy.init_state(4.0)
        step = jax.tree.map(lambda leaf: np.asarray(leaf)[0], episode_of(0, SPEC, 1))
        after = jax.eval_shape(policy.observe, state, step)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert size(state.systems) == 2 * 4 * 6


def test_the_return_to_go_is_what_was_asked_less_what_was_earned() -> None:
    episode, learner = episode_of(3, SPEC, T), made(SMALL)

    @partial(jax.jit, static_argnums=(0, 1))
    def after(gamma: float, delay_rewards: bool) -> jax.Array:
        policy = ds4.policy(replace(SMALL, gamma=gamma, delay_rewards=delay_rewards), learner)
        state = policy.init_state(6.0)
        return jax.lax.scan(lambda state, step: (policy.observe(state, step), None), state, episode)[0].return_to_go

    earned = np.asarray(episode.reward, np.float64)
    assert after(1.0, False) == pytest.approx(6 - earned.sum(), abs=1e-5)
    assert after(0.9, False) == pytest.approx(target_returns_to_go(6.0, episode, 0.9)[-1], rel=1e-5)
    assert after(1.0, True) == 6.0
    policy = ds4.policy(SMALL, learner)
    by_default = acted(policy, episode)
    np.testing.assert_array_equal(by_default, acted(policy, episode, float(learner.statistics.target)))
    assert np.abs(by_default - acted(policy, episode, 0.0)).max() > 1e-4


def test_one_action_is_held_at_every_length() -> None:
    policy = ds4.policy(SMALL, made(SMALL))
    state = policy.init_state(())
    state = replace(state, read=jnp.arange(1.0, 5.0))
    (one, after), (eight, _) = jax.jit(lambda state: [policy.decide(state, None, n) for n in (1, 8)])(state)
    assert eight.shape == (8, 2)
    np.testing.assert_array_equal(eight, np.repeat(one, 8, axis=0))
    assert same(after, state)


# --- who sees what ---


@pytest.mark.parametrize("core", ["s4d", "s5", "s4"])
def test_nothing_is_seen_before_it_happens(core: Any) -> None:
    network, given = made(replace(SMALL, core=core)).network, inputs()
    plain = forward(network, given)
    for name, value in given.items():
        for j in (0, 4, T - 1):
            other = value.copy()
            other[j] += 1.5
            moved = np.abs(forward(network, {**given, name: other}) - plain).max(axis=1)
            np.testing.assert_allclose(moved[:j], 0, rtol=0, atol=1e-6, err_msg=name)
            assert moved[j] > 1e-3, (name, j)


@pytest.mark.parametrize("control", ["returns", "history"])
def test_a_control_does_not_read_what_it_lacks(control: str) -> None:
    config = replace(SMALL, **{control: False})  # type: ignore[arg-type]
    learner, given, episode = made(config), inputs(), episode_of(0, SPEC, T)
    policy, plain = ds4.policy(config, learner), forward(learner.network, given)
    act = acted(policy, episode, () if control == "returns" else 4.0)
    np.testing.assert_allclose(
        act, units(np.tanh(forward(learner.network, fed(learner, episode, 4.0)))), rtol=0, atol=1e-5
    )
    if control == "returns":
        np.testing.assert_array_equal(forward(learner.network, {**given, "returns": given["returns"] + 1}), plain)
        np.testing.assert_array_equal(acted(policy, replace(episode, reward=plus(episode.reward, 1))), act)
        return
    np.testing.assert_array_equal(forward(learner.network, {**given, "previous": given["previous"] + 1}), plain)
    np.testing.assert_array_equal(acted(policy, replace(episode, executed=plus(episode.executed, 1)), 4.0), act)
    for name in ("observations", "returns"):
        other = given[name].copy()
        other[3] += 1
        after = forward(learner.network, {**given, name: other})
        np.testing.assert_array_equal(np.delete(after, 3, axis=0), np.delete(plain, 3, axis=0))
        assert np.abs(after[3] - plain[3]).max() > 1e-3
    other = acted(policy, replace(episode, observation=plus(episode.observation, 1, 3)), 4.0)
    np.testing.assert_array_equal(np.delete(other, 3, axis=0), np.delete(act, 3, axis=0))


L = 5
READ = ("observations", "previous", "returns_to_go", "actions")


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("paper", [False, True])
def test_which_numbers_an_action_is_learnt_from(paper: bool, first: int) -> None:
    """The error at step t alone, differentiated by every number of the batch: a_t can be a function of s_t and of
    a_{t-1}, and not of s_{t+1}. Aligned as in the paper's code, a_t sees R_{t-1}, and a_0 is never learnt. A stretch
    that begins within an episode knows the action before it; an episode's first step has none.
    """
    config = replace(SMALL, paper_alignment=paper, length=L)
    learner, batch = made(replace(config, paper_alignment=False)), windows_of(0, SPEC, [L], L, first)

    def at(fields: dict[str, jax.Array], mask: jax.Array) -> jax.Array:
        return ds4.loss(learner.network, learner.statistics, config, replace(batch, **fields, mask=mask[None]))

    fields, steps = {n: getattr(batch, n) for n in READ}, np.eye(L, dtype=bool)
    found = jax.jit(jax.vmap(jax.grad(at), in_axes=(None, 0)))(fields, steps)
    for t in range(L):
        sees = {
            name: set(np.flatnonzero(np.abs(np.asarray(g[t, 0]).reshape(L, -1)).max(axis=1) > 1e-7))
            for name, g in found.items()
        }
        if paper:
            steps = set(range(1, t + 1))
            told = {"observations": steps, "previous": steps, "returns_to_go": {j - 1 for j in steps}}
            assert sees == {**told, "actions": {t} - {0}}, t
        else:
            steps = set(range(t + 1))
            spoken = steps if first else steps - {0}
            told = {"observations": steps, "previous": spoken, "returns_to_go": steps, "actions": {t}}
            assert sees == told, t


def test_the_loss_does_not_read_what_fills_windows_up() -> None:
    learner, batch = made(SMALL), windows_of(0, SPEC, [T, 1, 7], T)
    plain = loss(learner.network, learner.statistics, SMALL, batch)
    for name in READ:
        x = getattr(batch, name)
        padded = ~np.asarray(batch.mask).reshape(*batch.mask.shape, *(1,) * (x.ndim - 2))
        moved = replace(batch, **{name: jnp.asarray(np.asarray(x) + np.float32(3) * padded)})
        other = loss(learner.network, learner.statistics, SMALL, moved)
        assert other == pytest.approx(float(plain), rel=1e-6), name


# --- the loss and the update ---


@pytest.mark.parametrize(("paper", "squash"), [(False, True), (True, False)])
def test_loss_is_the_mean_square_in_units_of_the_bounds(paper: bool, squash: bool) -> None:
    config = replace(SMALL, paper_alignment=paper, squash=squash)
    learner, batch, total = made(SMALL), windows_of(0, SPEC, [T, 1, 7], T), []
    for i, n in enumerate((T, 1, 7)):
        unit, before = (
            2 * (np.asarray(x)[i] - SPEC.low) / np.subtract(SPEC.high, SPEC.low) - 1
            for x in (batch.actions, batch.previous)
        )
        before[0] = 0
        given = {
            "observations": normalised(learner, batch.observations)[i],
            "previous": before.astype(np.float32),
            "returns": np.asarray(batch.returns_to_go)[i] / np.float32(2.5),
        }
        if paper:
            given = {name: value[:-1] if name == "returns" else value[1:] for name, value in given.items()}
            unit, n = unit[1:], n - 1
        made_of = forward(learner.network, given)
        total += list((((np.tanh(made_of) if squash else made_of) - unit) ** 2)[:n].mean(axis=1))
    assert len(total) == (T + 1 + 7) - 3 * paper
    assert loss(learner.network, learner.statistics, config, batch) == pytest.approx(np.mean(total), rel=1e-5)


def test_loss_of_choices_is_the_cross_entropy() -> None:
    learner, batch, total = made(SMALL, CHOICE), windows_of(0, CHOICE, [T, 1, 7], T), []
    for i, n in enumerate((T, 1, 7)):
        before = np.eye(4, dtype=np.float32)[np.asarray(batch.previous)[i]]
        before[0] = 0
        given = {
            "observations": normalised(learner, batch.observations)[i],
            "previous": before,
            "returns": np.asarray(batch.returns_to_go)[i] / np.float32(2.5),
        }
        logits = log_softmax(forward(learner.network, given).astype(np.float64), axis=1)
        total += [-logits[t, int(np.asarray(batch.actions)[i, t])] for t in range(n)]
    assert loss(learner.network, learner.statistics, SMALL, batch) == pytest.approx(np.mean(total), rel=1e-5)


@pytest.fixture(scope="module")
def batch() -> Window:
    return windows_of(0, SPEC, [T, 3, 7, T], T)


@pytest.fixture(scope="module")
def taught() -> ds4.Learner:
    return made(TAUGHT)


def parts(network: ds4.Network) -> dict[str, np.ndarray]:
    """The numbers of a network: those of the systems' cores and read-outs, and all others."""
    kinds, leaves = jax.tree.leaves(groups(network)), jax.tree.leaves(network)
    return {
        kind: np.concatenate([np.ravel(leaf) for k, leaf in zip(kinds, leaves, strict=True) if k == kind])
        for kind in ("core", "readout", "rest")
    }


def test_each_part_has_its_own_step_size_and_the_systems_no_decay(taught: ds4.Learner, batch: Window) -> None:
    """Adam's first step is its step size times the gradient's sign, here that of the first of ten updates."""
    after, metrics = update(TAUGHT, taught, batch, jax.random.key(0))
    old, new = parts(taught.network), parts(after.network)
    steps = {kind: new[kind].astype(np.float64) - old[kind] for kind in old}
    decay = 1e-4 * 3.0 * old["rest"]
    for kind, taken, step in (
        ("core", steps["core"], 5e-4),
        ("readout", steps["readout"], 1e-4),
        ("rest", steps["rest"] + decay, 1e-4),
    ):
        assert np.abs(taken).max() < step * (1 + 2e-3), kind
        assert np.median(np.abs(taken)) > step * (1 - 2e-2), kind
    assert np.abs(decay).max() > 5e-5
    assert metrics["loss"] == pytest.approx(float(loss(taught.network, taught.statistics, TAUGHT, batch)), rel=1e-5)
    assert same(after.statistics, taught.statistics)
    assert (after.updates, taught.updates) == (1, 0)


def test_a_frozen_core_stays_to_the_bit(taught: ds4.Learner, batch: Window) -> None:
    config = replace(TAUGHT, freeze_core=True)
    learner = made(config)
    assert same(learner.network, taught.network)
    after, _ = update(config, learner, batch, jax.random.key(0))
    old, new = parts(learner.network), parts(after.network)
    np.testing.assert_array_equal(new["core"], old["core"])
    assert (new["readout"] != old["readout"]).mean() > 0.99
    assert (new["rest"] != old["rest"]).mean() > 0.9
    moving, _ = update(TAUGHT, taught, batch, jax.random.key(0))
    close(after.network.out, moving.network.out, 1e-6)  # the rest learns as it would


def test_a_frozen_cores_gradient_does_not_count_when_clipped(batch: Window) -> None:
    taught = made(TAUGHT, seed=3)  # whose core is heeded
    _, frozen = update(replace(TAUGHT, freeze_core=True), taught, batch, jax.random.key(0))
    gradient = jax.jit(jax.grad(ds4.loss), static_argnums=2)(taught.network, taught.statistics, TAUGHT, batch)
    of = parts(gradient)
    both, without = (
        np.linalg.norm(np.concatenate([of[name] for name in names])) for names in (of, ("readout", "rest"))
    )
    assert frozen["gradient_norm"] == pytest.approx(without, rel=1e-4)
    assert both > 1.001 * without


def test_bfloat16_is_of_the_dense_layers(taught: ds4.Learner, batch: Window) -> None:
    (half, of_half), (_, whole) = (
        update(config, taught, batch, jax.random.key(0)) for config in (replace(TAUGHT, dtype="bfloat16"), TAUGHT)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((half.network, of_half))} == {jnp.dtype("float32")}
    assert of_half["loss"] != whole["loss"]
    for name in ("loss", "gradient_norm"):
        assert of_half[name] == pytest.approx(float(whole[name]), rel=0.03), name


def test_dropout_is_on_in_training_alone() -> None:
    learner, batch = made(replace(SMALL, dropout=0.3)), windows_of(0, SPEC, [T, 2], T)
    dry = loss(learner.network, learner.statistics, SMALL, batch)
    wet = [float(loss(learner.network, learner.statistics, SMALL, batch, jax.random.key(i))) for i in range(2)]
    assert len({float(dry), *wet}) == 3
    policy, none, episode = ds4.policy(SMALL, learner), ds4.policy(SMALL, made(SMALL)), episode_of(0, SPEC, 3)
    np.testing.assert_array_equal(acted(policy, episode, 4.0), acted(none, episode, 4.0))


# --- sizes, data ---


@pytest.mark.parametrize(("channels", "count"), [(96, 105_312), (64, 62_784)])
def test_parameter_counts_are_those_published(channels: int, count: int) -> None:
    """Hopper: the dense layers with norms, C and D. A, B and the step sizes, which the published code never trains,
    are counted apart: three times 48 decays, frequencies and complex B, and a step size per channel.
    """
    config = ds4.Config(channels=channels, order=96, embedding=128, norm=True)
    learner = jax.eval_shape(partial(ds4.init, config, Spec(11, (-1.0,) * 3, (1.0,) * 3)), jax.random.key(0))
    shapes = jax.tree.leaves(learner.network)
    kinds = jax.tree.leaves(groups(jax.tree.map(lambda leaf: np.zeros(leaf.shape), learner.network)))
    sizes = {k: sum(s.size for s, kind in zip(shapes, kinds, strict=True) if kind == k) for k in set(kinds)}
    assert sizes["rest"] + sizes["readout"] == count
    assert sizes["core"] == 3 * (4 * 48 + channels)


def test_the_beginning_is_of_the_named_kind() -> None:
    """A real first learner: systems of the core asked for, dt between a thousandth and a tenth, biases and all."""
    config = replace(SMALL, layers=2)
    learner, other = (init(config, SPEC, jax.random.key(seed), facts_of(SPEC)) for seed in (0, 1))
    for block in learner.network.blocks:
        assert (np.exp(block.system.log_dt) >= 0.99e-3).all()
        assert (np.exp(block.system.log_dt) <= 0.101).all()
        np.testing.assert_allclose(np.exp(block.system.log_decay), 0.5, rtol=1e-6)
        np.testing.assert_allclose(block.system.frequency, np.pi * np.arange(3), rtol=1e-6)
    assert not same(learner.network.out, other.network.out)
    assert not same(learner.network.blocks[0], learner.network.blocks[1])


def test_whole_episodes_are_asked_for() -> None:
    assert ds4.batches(ds4.Config(batch_size=7, length=30)) == BatchSpec(7, 30, whole=True)
    assert ds4.plan_length(ds4.Config()) == 1


def test_data_that_cannot_be_learnt_from_are_refused() -> None:
    data = trajectories(**raw([5, 2]), about=About("logs"))
    assert ds4.select_data(ds4.Config(length=3), data) is data  # a longer episode is cut, not refused
    with pytest.raises(
        LegatoError, match=r"^logs has no rewards: it can be imitated \(bc; dt and ds4 with `returns=False`"
    ):
        ds4.select_data(ds4.Config(), replace(data, rewards=None))
    found = ds4.select_data(ds4.Config(returns=False), replace(data, rewards=None)).rewards
    np.testing.assert_array_equal(found, np.zeros(7))  # type: ignore[arg-type]
    late = ds4.select_data(ds4.Config(delay_rewards=True), data)
    np.testing.assert_allclose(logs.returns_to_go(late), np.repeat(logs.returns(data), [5, 2]), rtol=1e-6)
