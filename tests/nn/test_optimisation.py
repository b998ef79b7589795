"""Gradient steps and target networks against their closed forms."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.errors import LegatoError
from legato.nn import optimisation
from legato.nn.mlp import MLP, Linear
from legato.nn.optimisation import FLOOR, descend, linear_decay, muon, polyak

LR = 0.01


def tree(*values: float) -> dict[str, Any]:
    a, b = jnp.array(values[:2]), jnp.array(values[2])
    return {"a": a, "inside": (b,)}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_adams_first_step_is_the_learning_rate_against_the_sign(scale: float) -> None:
    network, gradient = tree(1.0, 2.0, 3.0), tree(-2.0 * scale, 0.5 * scale, scale)
    adam = optax.adam(LR)
    moved, _ = descend(adam, network, gradient, adam.init(network))
    for new, expected in zip(jax.tree.leaves(moved), jax.tree.leaves(tree(1 + LR, 2 - LR, 3 - LR)), strict=True):
        np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_no_gradient_no_step() -> None:
    adam, network = optax.adam(LR), tree(1.0, -2.0, 3.0)
    moved, _ = descend(adam, network, tree(0.0, 0.0, 0.0), adam.init(network))
    jax.tree.map(np.testing.assert_array_equal, moved, network)


def test_the_state_carries_adams_moments() -> None:
    """Five steps of Kingma & Ba's algorithm 1 for one number."""
    gradients, adam = [0.3, -1.0, 2.0, 0.1, 0.7], optax.adam(LR)
    network = jnp.array(5.0)
    state, theta, m, v = adam.init(network), 5.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        network, state = descend(adam, network, jnp.array(g), state)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert network == pytest.approx(theta, abs=2e-6)


@given(target=st.floats(-100, 100), online=st.floats(-100, 100), tau=st.floats(0, 1), steps=st.integers(0, 5))
def test_polyak_closes_the_gap_geometrically(target: float, online: float, tau: float, steps: int) -> None:
    moving, still = tree(target, 0.0, target), tree(online, 1.0, online)
    for _ in range(steps):
        moving = polyak(moving, still, tau)
    expected = online + (1 - tau) ** steps * (target - online)
    np.testing.assert_allclose(moving["a"], [expected, 1 - (1 - tau) ** steps], atol=2e-4)
    np.testing.assert_allclose(moving["inside"][0], expected, atol=2e-4)


def test_polyak_keeps_the_structure_of_a_network() -> None:
    target, online = (MLP((2, 3, 1), key=jax.random.key(i)) for i in (0, 1))
    x = jnp.ones((4, 2))
    np.testing.assert_array_equal(polyak(target, online, 0.0)(x), target(x))
    np.testing.assert_allclose(polyak(target, online, 1.0)(x), online(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("updates", "share"), [(0, 1.0), (10, 0.9), (50, 0.5), (95, FLOOR), (100, FLOOR), (10**6, FLOOR)]
)
def test_an_annealed_step_size_falls_linearly_to_its_floor(updates: int, share: float) -> None:
    assert float(linear_decay(LR, 100, jnp.array(updates))) == pytest.approx(LR * share, rel=1e-6)


def test_a_step_size_is_constant_unless_it_is_told_over_what_to_fall() -> None:
    assert linear_decay(LR, 0, jnp.array(10**6)) == LR
    with pytest.raises(LegatoError, match="which only a training run knows"):
        linear_decay(LR, -1, jnp.array(0))


@pytest.mark.parametrize(
    ("rows", "tokens", "groups"), [(64, 60, 4), (64, 159, 8), (7, 1300, 7), (6, 99_999, 6), (5, 260, 1), (127, 60, 1)]
)
def test_a_batch_is_split_into_equal_parts_that_stay_near(rows: int, tokens: int, groups: int) -> None:
    assert optimisation._groups(rows, tokens) == groups


@pytest.mark.parametrize("tokens", [1, 450, 5000])
def test_the_gradient_in_groups_is_that_of_the_whole_batch(tokens: int, x64: None) -> None:
    """Of a mean over what counts, with rows of which more or less does; and of all that is reported beside it."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(6, 5, 3))), jnp.asarray(rng.normal(size=(6, 5)))
    mask = jnp.arange(5) < jnp.asarray([5, 1, 3, 2, 4, 1])[:, None]
    weight = jnp.asarray(rng.normal(size=3))
    sizes = []

    def of(weight: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        x, y, mask = batch
        sizes.append(len(x))
        error = jnp.abs(jnp.tanh(x @ weight) - y) ** 3
        return jnp.sum(jnp.where(mask, error, 0)) / mask.sum(), {
            "error": jnp.sum(jnp.where(mask, x[..., 0], 0)) / mask.sum()
        }

    batch, key = (x, y, mask), jax.random.key(0)
    whole = jax.value_and_grad(of, has_aux=True)(weight, batch, key)
    found = jax.jit(lambda w: optimisation.mean_gradient(of, w, batch, mask.sum(axis=-1), key, tokens))(weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, whole)
    assert set(sizes) == {6, {1: 6, 450: 3, 5000: 1}[tokens]}


def test_muon_steps_orthogonally_in_matrices_and_as_nadam_elsewhere() -> None:
    """Of a linear layer's weight every direction moves about alike, the size of an Adam step, and only it decays."""
    network = {"linear": Linear(8, 24, key=jax.random.key(0)), "table": jnp.ones((5, 4))}
    gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), network)
    steep = jnp.linspace(1.0, 30.0, 8)[:, None] * gradient["linear"].weight
    gradient["linear"] = eqx.tree_at(lambda layer: layer.weight, gradient["linear"], steep)
    stepped = {}
    for decay in (0.0, 0.1):
        optimiser = muon(lambda _: LR, decay)
        stepped[decay], _ = descend(optimiser, network, gradient, optimiser.init(network))
    moved, decayed = stepped.values()
    step = moved["linear"].weight - network["linear"].weight
    sizes = np.linalg.svd(np.asarray(step), compute_uv=False) / (0.2 * LR * 24**0.5)
    assert sizes.min() > 0.6 and sizes.max() < 1.3  # five iterations of Newton and Schulz; the gradient's: 1 to 30
    assert float(jnp.sum(step * steep)) < 0
    nadam = LR * (0.9 * 0.1 / 0.19 + 1)  # a first step that looks ahead
    np.testing.assert_allclose(jnp.abs(moved["table"] - 1.0), nadam, rtol=0.01)
    np.testing.assert_allclose(jnp.abs(moved["linear"].bias - network["linear"].bias), nadam, rtol=0.01)
    shrunk = moved["linear"].weight - decayed["linear"].weight
    np.testing.assert_allclose(shrunk, 0.1 * LR * network["linear"].weight, rtol=1e-2, atol=1e-7)
    np.testing.assert_array_equal(moved["linear"].bias, decayed["linear"].bias)
    np.testing.assert_array_equal(moved["table"], decayed["table"])
