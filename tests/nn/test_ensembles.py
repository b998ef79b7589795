"""Twin critics: two perceptrons of one state and one action, with nothing in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.nn.ensembles import TwinCritic

OBS, ACT, HIDDEN = 4, 2, (16, 8)


@pytest.fixture(scope="module")
def critic() -> TwinCritic:
    return TwinCritic(OBS, ACT, HIDDEN, key=jax.random.key(0))


def inputs(*leading: int) -> tuple[jax.Array, jax.Array]:
    k1, k2 = jax.random.split(jax.random.key(1))
    return jax.random.normal(k1, (*leading, OBS)), jax.random.normal(k2, (*leading, ACT))


def test_each_critic_has_the_parameters_of_one_perceptron(critic: TwinCritic) -> None:
    one = (OBS + ACT + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 1
    assert sum(leaf.size for leaf in jax.tree.leaves(critic)) == 2 * one


def test_the_critics_share_no_parameter(critic: TwinCritic) -> None:
    s, a = inputs(64)
    g1, g2 = (jax.grad(lambda c, i=i: c(s, a)[i].sum())(critic) for i in (0, 1))
    for one, two in zip(jax.tree.leaves(g1), jax.tree.leaves(g2), strict=True):
        np.testing.assert_array_equal(one * two, 0)
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(g1))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(g2))


def test_the_critics_disagree_before_training(critic: TwinCritic) -> None:
    q1, q2 = critic(*inputs(64))
    assert np.corrcoef(q1, q2)[0, 1] < 0.9


def test_without_bias_a_critic_is_positively_homogeneous_but_not_linear(critic: TwinCritic) -> None:
    """ReLU between the layers, nothing after the last; at the start all biases are zero."""
    s, a = inputs(64)
    for q, scaled, mirrored in zip(critic(s, a), critic(3 * s, 3 * a), critic(-s, -a), strict=True):
        np.testing.assert_allclose(scaled, 3 * q, rtol=1e-4, atol=1e-5)
        assert not np.allclose(mirrored, -q, atol=0.05)
        assert q.min() < 0 < q.max()


def test_state_and_action_both_count(critic: TwinCritic) -> None:
    s, a = inputs(64)
    for of_s, of_a in zip(critic(s, jnp.zeros_like(a)), critic(jnp.zeros_like(s), a), strict=True):
        assert np.std(of_s) > 0.05
        assert np.std(of_a) > 0.05


@given(leading=st.lists(st.integers(1, 5), max_size=4))
def test_any_leading_shape_is_a_batch(leading: list[int]) -> None:
    s, a = (jax.ShapeDtypeStruct((*leading, size), jnp.float32) for size in (OBS, ACT))
    critic = jax.eval_shape(lambda key: TwinCritic(OBS, ACT, HIDDEN, key=key), jax.random.key(0))
    assert [q.shape for q in jax.eval_shape(TwinCritic.__call__, critic, s, a)] == [tuple(leading)] * 2


def test_a_batch_is_its_members(critic: TwinCritic) -> None:
    s, a = inputs(3, 2)
    q = critic(s, a)
    for i in np.ndindex(3, 2):
        np.testing.assert_allclose([q[0][i], q[1][i]], critic(s[i], a[i]), atol=1e-6)
