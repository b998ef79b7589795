"""Normalised scores: whose levels they are, and that they are a line through 0 and 100."""

from __future__ import annotations

import numpy as np
import pytest

from legato.errors import LegatoError
from legato.evaluation.normalised import D4RL, NormalisationScores, normalisation_scores


def test_a_score_is_the_line_through_random_and_expert() -> None:
    found = NormalisationScores(-20.0, 180.0, "somebody")
    np.testing.assert_allclose(found.score([-20, 30, 180, 230, -70]), [0, 25, 100, 125, -25])
    assert found.score([[1, 2, 3]]).shape == (1, 3)
    assert found.score(80).dtype == np.float64


def test_d4rl_scores_its_own_levels_0_and_100() -> None:
    """And a return in between by hand: 100 (1422 + 20.272305) / (3234.3 + 20.272305)."""
    for name, pair in D4RL.items():
        found = normalisation_scores(f"{name}-v4")
        assert found is not None
        np.testing.assert_allclose(found.score(pair), [0, 100], atol=1e-9)
        assert found.source == "D4RL"
    hopper = normalisation_scores("Hopper-v2")
    assert hopper is not None
    assert hopper.score(1422.0) == pytest.approx(44.3153, abs=1e-4)


def test_the_levels_of_d4rl() -> None:
    assert {name: pair for name, pair in D4RL.items() if not name.startswith("Adroit")} == {
        "HalfCheetah": (-280.178953, 12135.0),
        "Hopper": (-20.272305, 3234.3),
        "Walker2d": (1.629008, 4592.3),
        "Ant": (-325.6, 3879.7),
    }
    rounded = {name[10:]: tuple(map(round, pair)) for name, pair in D4RL.items() if name.startswith("Adroit")}
    assert rounded == {"Pen": (96, 3077), "Hammer": (-275, 12794), "Door": (-57, 2881), "Relocate": (-6, 4234)}


@pytest.mark.parametrize(
    ("environment_id", "known"),
    [
        ("Hopper-v5", True),
        ("Hopper", True),
        ("gymnasium.envs.mujoco:Hopper-v4", True),
        ("mine/Hopper-v4", False),
        ("hopper-v4", False),
        ("AdroitHandDoorSparse-v1", False),
        ("Pendulum-v1", False),
    ],
)
def test_names_count_and_versions_do_not(environment_id: str, known: bool) -> None:
    found = normalisation_scores(environment_id)
    assert found == (NormalisationScores(-20.272305, 3234.3, "D4RL") if known else None)


def test_the_datasets_own_levels_come_first() -> None:
    assert normalisation_scores("AdroitHandDoor-v1", (-45.8, 2940.6)) == NormalisationScores(
        -45.8, 2940.6, "the dataset"
    )
    assert normalisation_scores("Nowhere-v0", [0, 4]) == NormalisationScores(0.0, 4.0, "the dataset")
    assert normalisation_scores("Hopper-v4", (5.0, 5.0)) is None  # they say nothing, and others are not mixed in


@pytest.mark.parametrize("pair", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_levels_that_score_nothing_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(LegatoError, match="need a random return below the expert's; a file says"):
        NormalisationScores(*pair, "a file")
