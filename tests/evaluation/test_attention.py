"""What predictions attend to: which window is read, who is who in it, and what shares say of weights made by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tests.tiny import new_policy, swings

from legato.algorithms.bc import bc
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_transformer import decision_transformer as dt
from legato.algorithms.decision_transformer import online_decision_transformer as odt
from legato.algorithms.decision_transformer.config import DT, ODT
from legato.algorithms.protocol import Token
from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.data import dataset_statistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.evaluation import attention
from legato.evaluation.attention import EpisodeAttention, table

SPEC, SWINGS = Spec(3, (-2.0,), (2.0,)), swings(final_observations=np.random.default_rng(1).normal(size=(12, 3)))
TINY = TT(bins=6, window=4, layers=2, heads=2, size=16, context=3, horizon=1, beams=2)
TOLD = replace(TINY, returns=False, goals="later", search="likelihood")
SMALL = DT(context=3, layers=1, heads=2, size=16, episode_length=20)


def planner(config: TT = TINY, data: Trajectories = SWINGS) -> tt.Planning:
    """Of random weights, larger than at the beginning, and the bins of the data."""
    return drawn(config, tt.prepare(config, SPEC, data, None, "")[0])


@partial(jax.jit, static_argnums=0)
def drawn(config: TT, known: Any) -> tt.Planning:
    learner = tt.init(config, SPEC, jax.random.key(0), known)
    network = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), learner.network)
    return tt.policy(config, replace(learner, network=network))


def decider(config: DT = SMALL) -> Any:
    return new_policy(dt, config, SPEC, jax.random.key(0), dataset_statistics.of(SWINGS, SPEC))


def attention_of(
    policy: Any, config: Any, data: Trajectories, *args: Any, name: str = "", **options: Any
) -> EpisodeAttention:
    name = name or {TT: "tt", DT: "dt", ODT: "odt", BC: "bc"}[type(config)]
    return attention.attention_of(name, config, policy, SPEC, data, *args, **options)


def test_the_window_ends_with_the_step_and_its_rows_are_predictions() -> None:
    """Weights as the network gives them for the window's tokens, encoded anew here."""
    policy = planner()
    found = attention_of(policy, TINY, SWINGS, episode=5, step=4)
    assert found.where == "episode 5, step 4"
    assert (found.steps, found.weights.shape) == (3, (2, 2, 17, 17))
    assert " ".join(token.name for token in found.tokens) == "s¹ s² s³ a¹ r V s¹ s² s³ a¹ r V s¹ s² s³ a¹ r"
    assert found.predicted == (*found.tokens[1:], Token("V", None, 2))
    _, source = tt.prepare(TINY, SPEC, SWINGS, None, "")
    first = int(SWINGS.offsets[5])
    rows = np.asarray(source.tokens[first + 2 : first + 5]).reshape(1, -1)[:, :-1]
    read = jax.jit(lambda network, rows: network.attention(rows))
    want = np.asarray(read(policy.network, jnp.asarray(rows, jnp.int32)))[0]
    np.testing.assert_allclose(found.weights, want, atol=1e-6)
    np.testing.assert_array_equal(found.weights > 0, np.broadcast_to(found.sees, found.weights.shape))
    np.testing.assert_allclose(found.even.sum(axis=-1), 1)


def test_by_default_it_is_the_middle_of_the_first_episode() -> None:
    policy = planner()
    found = attention_of(policy, TINY, SWINGS)
    assert found.where == "episode 0, step 1"
    assert found.steps == 2  # the episode does not begin earlier
    assert attention_of(policy, TINY, SWINGS, 11).steps == 3
    assert attention_of(policy, TINY, SWINGS, 11, context=4).steps == 4
    alone = attention_of(policy, TINY, SWINGS, 11, step=0)
    assert [token.name for token in alone.predicted] == ["s²", "s³", "a¹", "r", "V"]


def test_a_goal_stands_in_front_and_predicts_nothing() -> None:
    """It is the episode's last observation."""
    policy = planner(TOLD)
    found = attention_of(policy, TOLD, SWINGS, 7, 6)
    assert " ".join(token.name for token in found.tokens) == "g¹ g² g³ s¹ s² s³ a¹ s¹ s² s³ a¹ s¹ s² s³"
    assert [token.step for token in found.tokens[:4]] == [None, None, None, 0]
    assert (len(found.predicted), found.weights.shape[2:]) == (11, (11, 14))
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.weights[0, 0] > 0, found.sees)
    assert SWINGS.final_observations is not None
    moved = replace(SWINGS, final_observations=-SWINGS.final_observations)
    other = attention_of(policy, TOLD, moved, 7, 6).weights
    assert np.abs(other - found.weights).max() > 0.001
    unread = replace(SWINGS, final_observations=np.where(np.arange(12)[:, None] == 7, SWINGS.final_observations, 0))
    np.testing.assert_array_equal(attention_of(policy, TOLD, unread, 7, 6).weights, found.weights)


@pytest.mark.parametrize("decoding", ["window", "cache"])
def test_decisions_of_actions_attend_to_returns_states_and_actions(decoding: Any) -> None:
    config = replace(SMALL, decoding=decoding, positions="rotary")
    found = attention_of(decider(config), config, SWINGS, 11, 8, context=6 if decoding == "cache" else None)
    steps = 6 if decoding == "cache" else 3
    assert "".join(token.name for token in found.tokens) == "Rsa" * (steps - 1) + "Rs"
    assert [token.name for token in found.predicted] == ["a"] * steps
    np.testing.assert_array_equal(found.weights[0, 0] > 0, found.sees)
    assert found.sees[-1].sum() == (9 if decoding == "cache" else 8)  # a band of three steps
    assert found.kinds == ("same", "states", "returns")


def by_hand(weights: list[list[float]]) -> EpisodeAttention:
    """Two steps of one state and two actions, one head; only the newest step's rows are given."""
    tokens = [Token("s", 1, t // 3) if t % 3 == 0 else Token("a", t % 3, t // 3) for t in range(6)]
    rows = np.concatenate([np.eye(2, 5), np.array(weights)])
    return EpisodeAttention(rows[None, None], np.tri(5, dtype=bool), tuple(tokens[1:]), tuple(tokens[:-1]), "by hand")


def test_an_online_decision_transformer_attends_as_its_network_does() -> None:
    config = ODT(context=3, eval_context=3, layers=1, heads=2, size=16, episode_length=20)
    policy = new_policy(odt, config, SPEC, jax.random.key(0), dataset_statistics.of(SWINGS, SPEC))
    found = attention_of(policy, config, SWINGS, 11, 9)
    assert (found.steps, found.weights.shape) == (3, (1, 2, 3, 8))
    want = attention_of(policy.reader, config, SWINGS, 11, 9, name="dt")
    np.testing.assert_array_equal(found.weights, want.weights)
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-6)


def test_shares_are_sorted_by_distance_and_kind() -> None:
    found = by_hand([[0.5, 0.2, 0.3, 0, 0], [0.1, 0.6, 0.1, 0.2, 0], [0.1, 0.1, 0.4, 0.1, 0.3]])
    assert found.kinds == ("same", "states", "actions")
    states = found.shares(found.weights, "s")[0, 0]
    np.testing.assert_allclose(states, [[0, 0, 0], [0.5, 0, 0.5], [0, 0, 0]])  # this step, the one before, the goal
    actions = found.shares(found.weights, "a")[0, 0]
    np.testing.assert_allclose(actions[0], [0, 0.15, 0.15])
    np.testing.assert_allclose(actions[1], [0.5, 0.1, 0.1])
    np.testing.assert_allclose(found.shares(found.weights)[0, 0], (states + 2 * actions) / 3)
    assert np.isnan(found.shares(found.weights, "r")).all()
    np.testing.assert_allclose(found.shares(found.even, "s")[0, 0][1], [1 / 3, 0, 2 / 3])


def test_the_table_says_the_shares() -> None:
    found = by_hand([[0.5, 0.2, 0.3, 0, 0], [0.1, 0.6, 0.1, 0.2, 0], [0.1, 0.1, 0.4, 0.1, 0.3]])
    console = Console(width=120)
    with console.capture() as said:
        console.print(table(found))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.get().splitlines() if "│" in line]
    assert rows[0] == ["1", "1", "20", "80", "0", "50", "50", "0", "50", "50", "25", "25"]
    assert rows[1][:2] == ["evenly", ""]


def test_with_one_step_nothing_lies_before(capsys: pytest.CaptureFixture[str]) -> None:
    found = attention_of(planner(), TINY, SWINGS, 3, step=0)
    Console(width=140).print(table(found))
    assert "100 │           0 │       0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episode": 12}, "swings has episodes 0 to 11; 12 was given"),
        ({"episode": -1}, "swings has episodes 0 to 11; -1 was given"),
        ({"episode": 2, "step": 5}, "episode 2 of swings has steps 0 to 4; 5 was given"),
        ({"step": -1}, "episode 0 of swings has steps 0 to 2; -1 was given"),
        ({"context": 5}, "this model reads 1 to 4 steps; a context of 5 was given"),
        ({"context": 0}, "this model reads 1 to 4 steps; a context of 0 was given"),
        ({"data": swings(observations=np.zeros((102, 4)))}, "swings has other observations or actions than this pol"),
        ({"data": swings(rewards=None)}, "swings has no rewards"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=f"^{words}"):
        attention_of(planner(), TINY, **{"data": SWINGS, **options})


def test_what_attends_to_nothing_is_refused() -> None:
    config = BC(hidden=8, layers=1)
    policy = new_policy(bc, config, SPEC, jax.random.key(0))
    with pytest.raises(LegatoError, match=r"^policies of bc have no attention: those of dt, odt and tt have$"):
        attention_of(policy, config, SWINGS)
