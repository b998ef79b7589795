"""Heat maps and paths as they end up in the file, read back from the SVG, whose parts have names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.test_figures import Drawn

from legato.algorithms.protocol import Token
from legato.envs import tasks
from legato.errors import LegatoError
from legato.evaluation.attention import EpisodeAttention
from legato.evaluation.figures import floor_plans, heat_maps
from legato.evaluation.goals import Floor, GoalEpisode

FLOOR = Floor(tasks.FourRooms().walls, 0.5)


def found(
    steps: int = 3, observations: int = 2, layers: int = 2, heads: int = 3, goal: bool = True
) -> EpisodeAttention:
    """Random weights of a window of states, an action and values."""
    one = [("s", i + 1) for i in range(observations)] + [("a", 1), ("V", None)]
    window = [Token(kind, number, step) for step in range(steps) for kind, number in one]
    tokens = [Token("g", i + 1, None) for i in range(observations * goal)] + window[:-1]
    front = observations * goal
    sees = np.arange(len(tokens)) <= front + np.arange(len(window) - 1)[:, None]
    sees &= np.array([token.kind != "V" for token in tokens])
    weights = np.where(sees, np.random.default_rng(0).exponential(size=(layers, heads, *sees.shape)), 0)
    return EpisodeAttention(
        weights / weights.sum(-1, keepdims=True), sees, tuple(window[1:]), tuple(tokens), "episode 0, step 7"
    )


def test_a_map_for_each_layer_and_head_or_for_those_asked_for(tmp_path: Path) -> None:
    drawn = Drawn(heat_maps.attention(found(), tmp_path / "all.svg", title="TT"))
    assert drawn.count("map-") == 6
    assert {"TT", "layer 2, head 3", "goal", "t", "t\N{MINUS SIGN}2", "s²", "values (hidden)"} <= set(drawn.words)
    some = Drawn(heat_maps.attention(found(), tmp_path / "some.svg", title="", layers=(2,), heads=(1, 3)))
    assert [word for word in some.words if word.startswith("layer")] == ["layer 2, head 1", "layer 2, head 3"]


def test_where_there_is_no_room_tokens_have_no_names(tmp_path: Path) -> None:
    drawn = Drawn(heat_maps.attention(found(6, 11, goal=False), tmp_path / "a.svg", title=""))
    assert "s²" not in drawn.words
    assert {"t\N{MINUS SIGN}5", "t"} <= set(drawn.words)
    assert "goal" not in drawn.words


@pytest.mark.parametrize("options", [{"layers": (3,)}, {"layers": (0,)}, {"heads": (1, 4)}])
def test_a_layer_or_head_that_there_is_not_is_refused(tmp_path: Path, options: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(LegatoError, match=r"^(layers|heads) are numbered from 1 to [23]; [034] was given$"):
        heat_maps.attention(found(), tmp_path / "a.png", title="", **options)
    assert not list(tmp_path.iterdir())


def episode(places: list[tuple[float, float]], goal: tuple[float, float], arrived: bool = True) -> GoalEpisode:
    return GoalEpisode(np.array(places), np.array(goal), arrived, len(places) - 1, 0.0)


def test_a_panel_for_each_goal(tmp_path: Path) -> None:
    episodes = [episode([(1, 1), (2, 2)], (2, 2.2)), episode([(9, 9), (9, 8), (9, 7)], (1, 1), False)]
    drawn = Drawn(floor_plans.paths(episodes, FLOOR, tmp_path / "a.svg", title="TT in rooms"))
    assert drawn.count("path-") == 2
    assert {"TT in rooms", "1 step", "does not arrive"} <= set(drawn.words)
    assert any(word.startswith("1 of 2 arrive") for word in drawn.words)


def test_paths_to_one_goal_share_a_panel_and_are_drawn_where_they_led(tmp_path: Path) -> None:
    episodes = [episode([(1, 1), (2, 4), (5, 5)], (5, 5)), episode([(9, 9), (5, 6)], (5, 5), False)]
    drawn = Drawn(floor_plans.paths(episodes, FLOOR, tmp_path / "a.svg", title=""))
    assert "does not arrive" not in drawn.words
    line = np.concatenate([drawn.line("path-0")[:3], drawn.line("path-1")[:2]])
    places = np.concatenate([one.places for one in episodes])
    for axis, sign in ((0, 1), (1, -1)):  # y points down in the file
        scale, start = np.polyfit(places[:, axis], line[:, axis], 1)
        np.testing.assert_allclose(line[:, axis], start + scale * places[:, axis], atol=1e-3)
        assert scale * sign == pytest.approx(300 / 11, rel=1e-3)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match=r"^no journeys to draw in "):
        floor_plans.paths([], FLOOR, tmp_path / "a.png", title="")
    for draw in (
        lambda path: floor_plans.paths([], FLOOR, path, title=""),
        lambda path: heat_maps.attention(found(), path, title=""),
    ):
        with pytest.raises(LegatoError, match=r"^cannot draw '.*a.bmp'; the name must end in .png, .svg, .pdf$"):
            draw(tmp_path / "a.bmp")
    assert not list(tmp_path.iterdir())
