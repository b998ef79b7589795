"""Steps with what came of them: where they led, never into another episode, and whether the episode went on."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from legato.data.trajectories import About, Trajectories, trajectories
from legato.data.transitions import transitions
from legato.data.windows import BatchSpec
from legato.errors import LegatoError


def three(ends: bool = True) -> Trajectories:
    """Episodes of 3, 2 and 1 steps: terminated, truncated, terminated. Observations count 0, 1, 2, ...; ends are -i."""
    return trajectories(
        np.arange(6.0)[:, None],
        np.arange(6.0)[:, None] / 10,
        np.arange(6.0) + 100,
        np.isin(np.arange(6), (2, 5)),
        np.isin(np.arange(6), (4,)),
        final_observations=-np.arange(1.0, 4)[:, None] if ends else None,
        about=About("three"),
    )


def test_a_step_leads_to_the_next_or_to_the_end_of_its_episode() -> None:
    found = transitions(three()).at(jnp.arange(6))
    np.testing.assert_array_equal(found.observation[:, 0], range(6))
    np.testing.assert_array_equal(found.action[:, 0], np.float32(np.arange(6) / 10))
    np.testing.assert_array_equal(found.reward, 100 + np.arange(6))
    np.testing.assert_array_equal(found.next_observation[:, 0], [1, 2, -1, 4, -2, -3])
    np.testing.assert_array_equal(found.continues, [1, 1, 0, 1, 1, 0])  # a truncation goes on


def test_a_cut_is_left_out_where_nobody_saw_where_it_stood() -> None:
    data = transitions(three(ends=False))
    np.testing.assert_array_equal(data.usable, [0, 1, 2, 3, 5])
    found = data.at(data.usable)
    np.testing.assert_array_equal(found.continues, [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(found.next_observation[found.continues == 1, 0], [1, 2, 4])


@pytest.mark.parametrize("ends", [False, True])
def test_steps_are_drawn_alike(ends: bool) -> None:
    data = transitions(three(ends))
    drawn = jax.jit(lambda key: data.draw(key, BatchSpec(20_000, 1)))(jax.random.key(0))
    seen = np.bincount(np.asarray(drawn.observation[:, 0]).astype(int), minlength=6)
    assert stats.chisquare(seen[np.asarray(data.usable)]).pvalue > 0.01
    assert (seen[4] == 0) == (not ends)


def test_choices_stay_numbers() -> None:
    about = About("choices", choices=4)
    actions = np.array([0, 3, 1, 2, 2, 0])
    found = transitions(replace(three(), actions=actions, about=about)).at(jnp.arange(6))
    np.testing.assert_array_equal(found.action, actions)


def test_what_leads_nowhere_is_refused() -> None:
    with pytest.raises(LegatoError, match=r"^three has no rewards"):
        transitions(replace(three(), rewards=None))
    cut = replace(three(ends=False), terminations=np.zeros(6, bool), offsets=np.arange(7))
    with pytest.raises(LegatoError, match=r"^three has no next observation of any step"):
        transitions(cut)
