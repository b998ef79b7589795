"""State-space layers: golden values, three views of one recurrence, resets, causality, stability, optimiser groups."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from legato.errors import LegatoError
from legato.nn import ssm
from legato.nn.gru import GRUCell
from legato.nn.ssm import S4, S4D, S5, Complex

Layer = S4D | S5 | S4
KINDS = pytest.mark.parametrize("kind", ["zoh", "bilinear"])
DIAGONAL = pytest.mark.parametrize("layer", [S4D, S5])
LAYERS = pytest.mark.parametrize("layer", [S4D, S5, S4])
EACH = pytest.mark.parametrize(
    ("layer", "kind"), [(S4D, "zoh"), (S4D, "bilinear"), (S5, "zoh"), (S5, "bilinear"), (S4, "bilinear")]
)
H, N = 6, 8


def made(layer: Any, kind: Any = None, channels: int = H, order: int = N, seed: int = 0) -> Any:
    kind = kind or ("bilinear" if layer is S4 else "zoh")
    return layer(channels, order, discretisation=kind, key=jax.random.key(seed))


def inputs(length: int, *batch: int, channels: int = H) -> jax.Array:
    return jnp.asarray(np.random.default_rng(9).normal(size=(length, *batch, channels)), float)


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
    one = np.array([[1.0, 0.0], [1.0, 0.0]])
    layer = eqx.tree_at(
        lambda it: (it.log_decay, it.frequency, it.log_dt, it.b, it.c),
        layer,
        tuple(jnp.asarray(x) for x in (np.log([0.5, 0.5]), np.array([0, np.pi]), np.log([0.1]), one, one[None])),
    )
    found_a, found_b, found = jax.jit(lambda it: (it.discrete().a, it.discrete().b, it.kernel(8)))(layer)
    np.testing.assert_allclose(complexes(found_a)[0], a, atol=1e-6)
    np.testing.assert_allclose(complexes(found_b)[0], b, atol=1e-6)
    np.testing.assert_allclose(found[:, 0], kernel, atol=1e-6)


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

    discretise = jax.jit(ssm.discretise, static_argnums=3)
    for re, im, dt in ((0.5, 3.0, 0.1), (0.5, 0.0, 1e-3), (2.0, 40.0, 0.05)):
        matrix = np.array([[-re, -im], [im, -re]])
        decay, angle, hold = discretise(jnp.array(np.log(re)), jnp.array(im), jnp.array(dt), kind)
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


# --- S4 against the dense matrices of HiPPO-LegS ---


def dense(order: int) -> tuple[np.ndarray, np.ndarray]:
    """(A, B) by their definition, entry by entry."""
    a, b = np.zeros((order, order)), np.zeros(order)
    for n in range(order):
        b[n] = (2 * n + 1) ** 0.5
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -((2 * n + 1) ** 0.5) * (2 * k + 1) ** 0.5
    return a, b


def legs(order: int, dt: list[float], c: np.ndarray) -> S4:
    """S4 in double precision, with C given in HiPPO's own basis."""
    a, b, v = ssm.hippo(order)
    c = np.broadcast_to(c @ v, (len(dt), order // 2))
    p = v.conj().T @ np.sqrt(np.arange(order) + 0.5)
    parts = [np.stack([x.real, x.imag], -1) for x in (b, p, c)]
    values = (np.log(-a.real), a.imag, np.log(dt), *parts)
    return eqx.tree_at(
        lambda it: (it.log_decay, it.frequency, it.log_dt, it.b, it.p, it.c),
        made(S4, channels=len(dt), order=order),
        tuple(jnp.asarray(x, jnp.float64) for x in values),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parallel", [False, True])
def test_four_modes_of_legs(parallel: bool) -> None:
    expected = [0.547052, 0.223439, 0.063994, -0.004599, -0.025622, -0.023929, -0.013252, -0.000737]
    found = jax.jit(S4.kernel, static_argnums=(1, 2))(legs(4, [0.1], np.ones(4)), 8, parallel)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("order", "length"), [(2, 1), (8, 40), (64, 33)])
def test_s4_is_the_dense_recurrence(order: int, length: int) -> None:
    """Its kernel, in both ways of computing it, and its steps from a state that is not zero."""
    a, b = dense(order)
    rng, dt = np.random.default_rng(3), [1e-3, 0.02, 0.1]
    c, x0, u = rng.normal(size=order), rng.normal(size=(3, order)), rng.normal(size=(length, 3))
    it = legs(order, dt, c)
    start = x0 @ ssm.hippo(order)[2].conj()

    @jax.jit
    def ways(it: S4, u: jax.Array, x: Complex) -> Any:
        return ssm.scan(it, u, x)[1], it.kernel(length, False), it.kernel(length, True)

    begin = Complex(jnp.asarray(start.real), jnp.asarray(start.imag))
    scanned, *found = map(np.asarray, ways(it, jnp.asarray(u), begin))
    d = np.asarray(it.d)
    for h, step in enumerate(dt):
        under = np.eye(order) - step / 2 * a
        abar, bbar = np.linalg.solve(under, np.eye(order) + step / 2 * a), np.linalg.solve(under, step * b)
        kernel = [c @ np.linalg.matrix_power(abar, k) @ bbar for k in range(length)]
        for parallel in (False, True):
            np.testing.assert_allclose(found[parallel][:, h], kernel, atol=1e-11)
        x = x0[h]
        for t in range(length):
            x = abar @ x + bbar * u[t, h]
            np.testing.assert_allclose(scanned[t, h], c @ x + d[h] * u[t, h], atol=1e-10)


def test_s4_begins_with_legs() -> None:
    """As it is made: HiPPO's A and B in single precision, and parameters of the sizes that the paper counts."""
    it = made(S4, channels=300, order=32)
    assert sum(leaf.size for leaf in jax.tree.leaves(it)) == 16 + 16 + 300 + 32 + 32 + 300 * 32 + 300
    v = ssm.hippo(32)[2]
    b, p = (np.asarray(array) @ [1, 1j] for array in (it.b, it.p))
    lam = -np.exp(it.log_decay) + 1j * np.asarray(it.frequency)
    a = 2 * (v * lam @ v.conj().T).real - np.outer(2 * (v @ p).real, 2 * (v @ p).real)
    np.testing.assert_allclose(a, dense(32)[0], atol=1e-3 * 32, rtol=1e-5)
    np.testing.assert_allclose(2 * (v @ b).real, dense(32)[1], atol=1e-5)
    dt = np.exp(it.log_dt)
    assert 1e-3 <= dt.min() < 1.3e-3 and 0.08 < dt.max() <= 0.1
    assert np.std(it.c) == pytest.approx(0.5**0.5, rel=0.02)


def test_s4_says_what_it_cannot_do() -> None:
    with pytest.raises(LegatoError, match="zoh"):
        made(S4, "zoh")
    with pytest.raises(LegatoError, match="order = 7"):
        made(S4, order=7)
    with pytest.raises(LegatoError, match="parallel"):
        ssm.scan(made(S4), inputs(3), parallel=True)


# --- three views ---


@EACH
@pytest.mark.parametrize("length", [1, 40])
def test_convolution_scan_and_steps_agree(layer: type[Layer], kind: Any, length: int) -> None:
    it, u = made(layer, kind), inputs(length, 3)

    @jax.jit
    def at_once(it: Any, u: jax.Array) -> Any:
        return ssm.scan(it, u), it.convolve(u.swapaxes(0, 1)).swapaxes(0, 1), it.discrete()

    (x, scanned), convolved, system = jax.tree.map(np.asarray, at_once(it, u))
    np.testing.assert_allclose(convolved, scanned, atol=2e-5)
    state, step, rows = it.start(), jax.jit(it.step), np.asarray(u)
    for t in range(length):
        state, y = step(system, state, rows[t, 0])
        np.testing.assert_allclose(y, scanned[t, 0], atol=2e-6)
    np.testing.assert_allclose(complexes(state), complexes(x)[0], atol=2e-6)


@pytest.mark.parametrize(("kind", "within"), [("zoh", 2e-5), ("bilinear", 1e-4)])
@DIAGONAL
def test_they_agree_over_a_thousand_steps_in_single_precision(layer: type[Layer], kind: Any, within: float) -> None:
    it, u = made(layer, kind, channels=64, order=64), inputs(1000, channels=64)
    scanned, convolved = jax.jit(lambda it, u: (ssm.scan(it, u)[1], it.convolve(u)))(it, u)
    spread = float(np.std(scanned))
    assert 0.3 < spread < 10
    np.testing.assert_allclose(convolved, scanned, atol=within * max(1.0, spread))


@pytest.mark.parametrize("parallel", [False, True])
def test_s4_agrees_over_a_thousand_steps_in_single_precision(parallel: bool) -> None:
    it, u = made(S4, channels=64, order=64), inputs(1000, channels=64)

    @jax.jit
    def ways(it: S4, u: jax.Array) -> Any:
        return ssm.scan(it, u)[1], ssm.convolve(u, it.kernel(1000, parallel)) + it.d * u

    scanned, convolved = ways(it, u)
    assert 0.3 < float(np.std(scanned)) < 10
    np.testing.assert_allclose(convolved, scanned, atol=3e-5)  # measured: 0.4e-5, and 1.1e-5 in parallel
    with jax.enable_x64(True):
        exact = jax.jit(ssm.scan)(*jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), (it, u)))[1]
    np.testing.assert_allclose(scanned, exact, atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_s4_agrees_over_a_thousand_steps_in_double_precision() -> None:
    it, u = made(S4, channels=16, order=64), inputs(1000, channels=16).astype(jnp.float64)
    it = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), it)

    @jax.jit
    def at_once(it: S4, u: jax.Array) -> Any:
        kernels = [it.kernel(1000, way) for way in (False, True)]
        return ssm.scan(it, u)[1], it.convolve(u), it.discrete(), *kernels

    scanned, convolved, system, one, other = at_once(it, u)
    np.testing.assert_allclose(convolved, scanned, atol=1e-9)
    state, step, stepped = it.start(), jax.jit(it.step), []
    for at in np.asarray(u):
        state, y = step(system, state, at)
        stepped.append(y)
    np.testing.assert_allclose(stepped, scanned, atol=1e-9)
    np.testing.assert_allclose(one, other, atol=1e-9)


@LAYERS
@pytest.mark.usefixtures("x64")
def test_their_gradients_agree(layer: type[Layer]) -> None:
    it, u = made(layer), inputs(30, 2)
    weight = inputs(30, 2) ** 2

    def scanned(it: Any, u: jax.Array) -> jax.Array:
        return jnp.sum(weight * jnp.tanh(ssm.scan(it, u)[1]))

    def convolve(it: Any, u: jax.Array) -> jax.Array:
        return jnp.sum(weight * jnp.tanh(it.convolve(u.swapaxes(0, 1)).swapaxes(0, 1)))

    gradients = jax.jit(lambda it, u: [jax.grad(f, argnums=(0, 1))(it, u) for f in (scanned, convolve)])(it, u)
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert np.abs(a).max() > 1e-4
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_gradients_of_both_kernels_of_s4_agree() -> None:
    it, weight = made(S4), inputs(21)
    gradient = jax.grad(lambda it, way: jnp.sum(weight * it.kernel(21, way)))
    one, other = jax.jit(lambda it: (gradient(it, False), gradient(it, True)))(it)
    for field in ("log_decay", "frequency", "log_dt", "b", "p", "c"):
        a, b = getattr(one, field), getattr(other, field)
        assert np.abs(a).max() > 1e-4
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@DIAGONAL
def test_in_parallel_it_is_the_same_scan(layer: type[Layer]) -> None:
    """From a state that is not zero, with resets at the first step, at the last, and in between."""
    it, u = made(layer), inputs(37, 3)
    rng = np.random.default_rng(4)
    begin = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=(3, *leaf.shape)), float), it.start())
    some = np.zeros((37, 3), bool)
    some[0, 0] = some[[5, 6, 20], 1] = some[36, 2] = True

    @jax.jit
    def ways(it: Any, u: jax.Array, x: Complex, reset: jax.Array | None) -> Any:
        return [ssm.scan(it, u, x, reset, parallel) for parallel in (False, True, None)]

    for reset in (None, jnp.asarray(some)):
        one, other, unasked = ways(it, u, begin, reset)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(unasked[1], one[1])  # what a CPU does when nobody asks


# --- resets, causality, stability ---


@LAYERS
def test_a_reset_begins_anew(layer: type[Layer]) -> None:
    it, u = made(layer), inputs(12, 2)
    cuts = [(0, 5, 12), (0, 3, 9, 12)]
    reset = np.zeros((12, 2), bool)
    for member, of in enumerate(cuts):
        reset[list(of[1:-1]), member] = True

    @jax.jit
    def together_and_alone(it: Any, u: jax.Array, reset: jax.Array) -> Any:
        alone = [[ssm.scan(it, u[a:b, member]) for a, b in pairwise(of)] for member, of in enumerate(cuts)]
        return ssm.scan(it, u, reset=reset), alone

    (x, found), alone = together_and_alone(it, u, jnp.asarray(reset))
    found = np.asarray(found)
    for member, of in enumerate(cuts):
        for (a, b), (_, expected) in zip(pairwise(of), alone[member], strict=True):
            np.testing.assert_allclose(found[a:b, member], expected, atol=1e-6)
        np.testing.assert_allclose(complexes(x)[member], complexes(alone[member][-1][0]), atol=1e-6)


@LAYERS
def test_a_scan_goes_on_from_a_state(layer: type[Layer]) -> None:
    it, u = made(layer), inputs(10, 3)

    @jax.jit
    def ways(it: Any, u: jax.Array) -> Any:
        x, first = ssm.scan(it, u[:4])
        _, second = ssm.scan(it, u[4:], x)
        return jnp.concatenate([first, second]), ssm.scan(it, u)[1]

    np.testing.assert_allclose(*ways(it, u), atol=1e-6)


@LAYERS
def test_what_comes_later_changes_nothing_before(layer: type[Layer]) -> None:
    it, u = made(layer), np.array(inputs(40))
    u[-1] = 0.0
    changed = u.copy()
    changed[20:] += 100.0
    convolve = jax.jit(type(it).convolve)
    a, b = (np.asarray(convolve(it, jnp.asarray(x))) for x in (u, changed))
    np.testing.assert_allclose(a[:20], b[:20], atol=2e-4)  # FFT: a rounding of the largest number that it meets
    assert np.abs(a[20:] - b[20:]).max() > 10


@LAYERS
def test_what_pads_a_batch_changes_nothing(layer: type[Layer]) -> None:
    """Rows of 25 and 40 steps in one batch, whatever fills the shorter one, as if each were alone."""
    it, u = made(layer), np.array(inputs(40, 2).swapaxes(0, 1))
    together_and_alone = jax.jit(lambda it, u: (it.convolve(u), it.convolve(u[0, :25]), it.convolve(u[1])))
    for padding in (0.0, 1.0, -3.0):
        u[0, 25:] = padding
        found, short, long = map(np.asarray, together_and_alone(it, jnp.asarray(u)))
        np.testing.assert_allclose(found[0, :25], short, atol=1e-5)
        np.testing.assert_allclose(found[1], long, atol=1e-5)


@EACH
def test_no_update_makes_it_unstable(layer: type[Layer], kind: Any) -> None:
    """|Abar| < 1 by construction, whatever the optimiser does."""
    it, adam = made(layer, kind), optax.adam(1e-1)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        it, state = carry
        leaves, structure = jax.tree.flatten(it)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        change, state = adam.update(structure.unflatten(noise), state)
        return (optax.apply_updates(it, change), state), None

    @jax.jit
    def updated(it: Any) -> Any:
        return jax.lax.scan(step, (it, adam.init(it)), jax.random.split(jax.random.key(2), 1000))[0][0]

    it = updated(it)
    if not isinstance(it, S4):
        assert float(np.max(jax.jit(lambda it: it.discrete().decay)(it))) < 0
        return
    # The whole of Abar, dense and in double precision: its norm, not only its eigenvalues.
    assert np.max(np.abs(made(S4).p - it.p)) > 1
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), it)
        basis = np.eye(N)[:, None]
        of = Complex(jnp.asarray(basis[..., : N // 2]), jnp.asarray(basis[..., N // 2 :]))
        image = jax.jit(lambda it, x: it.discrete().advance(x))(exact, of)
        abar = np.concatenate(image, axis=-1).swapaxes(0, 1)
    assert np.max(np.linalg.norm(abar, 2, axis=(1, 2))) < 1
    # In single precision no state grows either.
    start = jax.tree.map(lambda leaf: leaf + 1.0, it.start())
    x, _ = jax.jit(ssm.scan)(it, jnp.zeros((2000, H)), start)
    assert np.all(np.linalg.norm(complexes(x), axis=-1) < np.linalg.norm(complexes(start), axis=-1))


def test_sizes_and_spread_of_the_beginning() -> None:
    it = made(S4D, channels=500, order=32)
    assert sum(leaf.size for leaf in jax.tree.leaves(it)) == 16 + 16 + 500 + 32 + 500 * 32 + 500
    dt = np.exp(it.log_dt)
    assert 1e-3 <= dt.min() < 1.3e-3 and 0.08 < dt.max() <= 0.1
    assert np.std(it.c) == pytest.approx(0.5**0.5, rel=0.02)
    assert len(jax.tree.leaves(made(S5))) == 6


# --- groups for optimisers ---


class Network(eqx.Module):
    """Layers in a list, a part without state-space layers, a function among the leaves, and a `__call__`."""

    layers: list[Any]
    mixer: eqx.nn.MLP
    gru: GRUCell
    w: jax.Array
    c: jax.Array
    name: str = eqx.field(static=True)

    def __call__(self, u: jax.Array) -> jax.Array:
        return sum(layer.convolve(u) for layer in self.layers)


def network() -> Network:
    mixer = eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(1))
    gru = GRUCell(2, 3, key=jax.random.key(2))
    return Network([made(S4D), made(S5), made(S4)], mixer, gru, jnp.ones(2), jnp.ones(3), "three")


def test_every_array_has_its_group() -> None:
    tree = {"net": network(), "scale": jnp.ones(2), "off": None}
    labels = ssm.groups(tree)
    arrays = eqx.filter(tree, eqx.is_array)
    assert jax.tree.structure(labels) == jax.tree.structure(arrays)
    core = {"log_decay", "frequency", "log_dt", "b"}
    for layer, extra in zip(labels["net"].layers, [set(), set(), {"p"}], strict=True):
        found = {field: getattr(layer, field) for field in core | extra | {"c", "d"}}
        assert found == {field: "core" for field in core | extra} | {"c": "readout", "d": "readout"}
        assert len(jax.tree.leaves(layer)) == len(found)
    labels["net"] = eqx.tree_at(lambda it: it.layers, labels["net"], None)
    assert set(jax.tree.leaves(labels)) == {"rest"}  # also a `c` that is no layer's


@pytest.mark.parametrize("frozen", ["core", "readout", "rest"])
def test_a_frozen_group_stays_as_it_is_to_the_bit(frozen: str) -> None:
    it = eqx.filter(network(), eqx.is_array)
    kinds = {kind: optax.set_to_zero() if kind == frozen else optax.adamw(1e-2) for kind in ("core", "readout", "rest")}
    optimiser = optax.multi_transform(kinds, ssm.groups)

    @jax.jit
    def update(it: Any, gradient: Any) -> Any:
        change, _ = optimiser.update(gradient, optimiser.init(it), it)
        return optax.apply_updates(it, change)

    after = update(it, jax.tree.map(jnp.ones_like, it))
    labels = jax.tree.leaves(ssm.groups(it))
    assert set(labels) == {"core", "readout", "rest"}
    for label, a, b in zip(labels, jax.tree.leaves(it), jax.tree.leaves(after), strict=True):
        same = np.asarray(a) == np.asarray(b)
        assert same.all() if label == frozen else not same.all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (3, 4), (4, 4), (9, 4), (40, 7)])
def test_products_convolve_as_the_kernel_does(length: int, chunk: int) -> None:
    """Chunks that fill, do not fill and outlast the sequence; value and gradients, over two axes of batch."""
    it = jax.tree.map(lambda leaf: leaf.astype(float), made(S4D, "zoh"))
    u = jnp.asarray(np.random.default_rng(5).normal(size=(2, 3, length, it.d.size)))
    by_kernel = lambda it, u: ssm.convolve(u, it.kernel(length)) + it.d * u  # noqa: E731
    by_products = lambda it, u: it.chunked(u, chunk)  # noqa: E731

    def gradients(f: Any, it: S4D, u: jax.Array) -> Any:
        value = lambda it, u: (jnp.sum(jnp.sin(y := f(it, u))), y)  # noqa: E731
        return jax.grad(value, (0, 1), has_aux=True)(it, u)

    (of, y), (as_of, expected) = jax.jit(lambda *of: [gradients(f, *of) for f in (by_products, by_kernel)])(it, u)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    for one, other in zip(jax.tree.leaves(of), jax.tree.leaves(as_of), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
