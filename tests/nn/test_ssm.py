"""State-space layers: golden values, three views of one recurrence, resets, causality, stability."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from legato.nn import ssm
from legato.nn.ssm import S4D, S5, Complex

KINDS = pytest.mark.parametrize("kind", ["zoh", "bilinear"])
LAYERS = pytest.mark.parametrize("layer", [S4D, S5])
H, N = 6, 8


def made(layer: type[S4D | S5], kind: Any = "zoh", channels: int = H, order: int = N, seed: int = 0) -> S4D | S5:
    return layer(channels, order, discretisation=kind, key=jax.random.key(seed))


def inputs(length: int, *batch: int, channels: int = H) -> jax.Array:
    return jax.random.normal(jax.random.key(9), (length, *batch, channels))


def complexes(x: Complex) -> np.ndarray:
    return np.asarray(x.re) + 1j * np.asarray(x.im)


# --- golden values, worked out in double precision ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "a", "b", "kernel"),
    [
        (
            "zoh",
            [0.951229, 0.904673 + 0.293946j],
            [0.097541, 0.095964 + 0.015070j],
            [0.387011, 0.350341, 0.300985, 0.244020, 0.184809, 0.128457, 0.079347, 0.040791],
        ),
        (
            "bilinear",
            [0.951220, 0.906446 + 0.292160j],
            [0.097561, 0.095322 + 0.014608j],
            [0.385767, 0.349877, 0.301445, 0.245362, 0.186828, 0.130827, 0.081677, 0.042686],
        ),
    ],
)
def test_two_modes(kind: Any, a: list[complex], b: list[complex], kernel: list[float]) -> None:
    layer = made(S4D, kind, channels=1, order=4)
    one = jnp.array([1.0, 0.0])
    layer = eqx.tree_at(
        lambda it: (it.log_decay, it.frequency, it.log_dt, it.b, it.c),
        layer,
        (jnp.log(jnp.full(2, 0.5)), jnp.array([0, jnp.pi]), jnp.log(jnp.array([0.1])), one[None].repeat(2, 0),
         one[None, None].repeat(2, 1)),
    )  # fmt: skip
    system = layer.discrete()
    np.testing.assert_allclose(complexes(system.a)[0], a, atol=1e-6)
    np.testing.assert_allclose(complexes(system.b)[0], b, atol=1e-6)
    np.testing.assert_allclose(layer.kernel(8)[:, 0], kernel, atol=1e-6)


def test_where_the_modes_begin() -> None:
    a, b, v = ssm.hippo(8)
    np.testing.assert_allclose(a.real, -0.5, atol=1e-12)
    np.testing.assert_allclose(a.imag, [0.427489, 1.957794, 5.354209, 19.857410], atol=1e-6)
    np.testing.assert_allclose(np.abs(b), [0.799464, 1.174960, 1.843869, 5.155626], atol=1e-6)
    np.testing.assert_allclose(v.conj().T @ v, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(ssm.modes(8, "inv")[0].imag, [17.825354, 4.244132, 1.527887, 0.363783], atol=1e-6)
    np.testing.assert_allclose(ssm.modes(8, "lin")[0], -0.5 + 1j * np.pi * np.arange(4))
    np.testing.assert_allclose(ssm.modes(8, "legs")[0], a)


@KINDS
@pytest.mark.usefixtures("x64")
def test_discretisation_is_that_of_the_matrix(kind: Any) -> None:
    """Abar and Bbar of one mode as a real 2 x 2 system, by the matrix exponential or the implicit formula."""
    from scipy.linalg import expm

    for re, im, dt in ((0.5, 3.0, 0.1), (0.5, 0.0, 1e-3), (2.0, 40.0, 0.05)):
        matrix = np.array([[-re, -im], [im, -re]])
        decay, angle, hold = ssm.discretise(jnp.log(re), jnp.array(im), jnp.array(dt), kind)
        if kind == "zoh":
            a = expm(dt * matrix)
            b = np.linalg.solve(matrix, a - np.eye(2)) @ [1, 0]
        else:
            under = np.linalg.inv(np.eye(2) - dt / 2 * matrix)
            a, b = under @ (np.eye(2) + dt / 2 * matrix), dt * under @ [1, 0]
        found = np.exp(decay) * np.exp(1j * angle)
        np.testing.assert_allclose([found.real, found.imag], a @ [1, 0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose([hold.re, hold.im], b, rtol=1e-9, atol=1e-12)


def test_zero_order_hold_keeps_its_digits_in_single_precision() -> None:
    """exp(z) - 1 written as such loses four digits of Bbar for a slow mode."""
    arguments = (np.log(0.5), 0.0, 1e-3)
    found = ssm.discretise(*(jnp.asarray(x, jnp.float32) for x in arguments), "zoh")[2].re
    np.testing.assert_allclose(found, -np.expm1(-0.5e-3) / 0.5, rtol=3e-7)


# --- three views ---


@LAYERS
@KINDS
@pytest.mark.parametrize("length", [1, 40])
def test_convolution_scan_and_steps_agree(layer: type[S4D | S5], kind: Any, length: int) -> None:
    it, u = made(layer, kind), inputs(length, 3)
    x, scanned = jax.jit(ssm.scan)(it, u)
    convolved = jax.jit(type(it).convolve)(it, u.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(convolved, scanned, atol=2e-5)
    system, state = it.discrete(), it.start()
    for t in range(length):
        state, y = it.step(system, state, u[t, 0])
        np.testing.assert_allclose(y, scanned[t, 0], atol=2e-6)
    np.testing.assert_allclose(complexes(state), complexes(x)[0], atol=2e-6)


@pytest.mark.parametrize(("kind", "within"), [("zoh", 2e-5), ("bilinear", 1e-4)])
@LAYERS
def test_they_agree_over_a_thousand_steps_in_single_precision(layer: type[S4D | S5], kind: Any, within: float) -> None:
    it, u = made(layer, kind, channels=64, order=64), inputs(1000, channels=64)
    scanned = jax.jit(ssm.scan)(it, u)[1]
    convolved = jax.jit(type(it).convolve)(it, u)
    assert 0.3 < float(jnp.std(scanned)) < 10
    np.testing.assert_allclose(convolved, scanned, atol=within * max(1.0, float(jnp.std(scanned))))


@LAYERS
@pytest.mark.usefixtures("x64")
def test_their_gradients_agree(layer: type[S4D | S5]) -> None:
    it, u = made(layer), inputs(30, 2)
    weight = inputs(30, 2) ** 2

    def scanned(it: Any, u: jax.Array) -> jax.Array:
        return jnp.sum(weight * jnp.tanh(ssm.scan(it, u)[1]))

    def convolved(it: Any, u: jax.Array) -> jax.Array:
        return jnp.sum(weight * jnp.tanh(it.convolve(u.swapaxes(0, 1)).swapaxes(0, 1)))

    for a, b in zip(*(jax.tree.leaves(jax.grad(f, argnums=(0, 1))(it, u)) for f in (scanned, convolved)), strict=True):
        assert np.abs(a).max() > 1e-4
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- resets, causality, stability ---


@LAYERS
def test_a_reset_begins_anew(layer: type[S4D | S5]) -> None:
    it, u = made(layer), inputs(12, 2)
    reset = jnp.zeros((12, 2), bool).at[5, 0].set(True).at[3, 1].set(True).at[9, 1].set(True)
    x, found = ssm.scan(it, u, reset=reset)
    for member, cuts in enumerate([(0, 5, 12), (0, 3, 9, 12)]):
        for a, b in pairwise(cuts):
            last, expected = ssm.scan(it, u[a:b, member])
            np.testing.assert_allclose(found[a:b, member], expected, atol=1e-6)
        np.testing.assert_allclose(complexes(x)[member], complexes(last), atol=1e-6)


@LAYERS
def test_a_scan_goes_on_from_a_state(layer: type[S4D | S5]) -> None:
    it, u = made(layer), inputs(10, 3)
    x, first = ssm.scan(it, u[:4])
    _, second = ssm.scan(it, u[4:], x)
    np.testing.assert_allclose(jnp.concatenate([first, second]), ssm.scan(it, u)[1], atol=1e-6)


@LAYERS
def test_what_comes_later_changes_nothing_before(layer: type[S4D | S5]) -> None:
    it, u = made(layer), inputs(40).at[-1].set(0.0)
    changed = u.at[20:].add(100.0)
    a, b = it.convolve(u), it.convolve(changed)
    np.testing.assert_allclose(a[:20], b[:20], atol=2e-4)  # FFT: a rounding of the largest number that it meets
    assert np.abs(a[20:] - b[20:]).max() > 10


@LAYERS
@KINDS
def test_no_update_makes_it_unstable(layer: type[S4D | S5], kind: Any) -> None:
    """|Abar| < 1 by construction, whatever the optimiser does."""
    it, adam = made(layer, kind), optax.adam(1e-1)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        it, state = carry
        leaves, structure = jax.tree.flatten(it)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        change, state = adam.update(structure.unflatten(noise), state)
        return (optax.apply_updates(it, change), state), None

    (it, _), _ = jax.lax.scan(step, (it, adam.init(it)), jax.random.split(jax.random.key(2), 1000))
    assert float(jnp.max(it.discrete().decay)) < 0


def test_sizes_and_spread_of_the_beginning() -> None:
    it = made(S4D, channels=500, order=32)
    assert sum(leaf.size for leaf in jax.tree.leaves(it)) == 16 + 16 + 500 + 32 + 500 * 32 + 500
    dt = np.exp(it.log_dt)
    assert 1e-3 <= dt.min() < 1.3e-3 and 0.08 < dt.max() <= 0.1
    assert np.std(it.c) == pytest.approx(0.5**0.5, rel=0.02)
    assert len(jax.tree.leaves(made(S5))) == 6
