"""Pictures of a field in space and time: which pixel shows what, in films and drawings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from tests.evaluation.test_figures import Drawn

from legato.envs import SpaceTime, make
from legato.envs.space_time import COLOURS, EDGE, GAP, LATER, STRIP, colours_of
from legato.evaluation.figures.space_time import space_time


def episode(steps: int, horizon: int = 10) -> SpaceTime:
    """Of a field that is 2 in the lower half of space and -2 above, with two actuators at 1 and -1."""
    field = np.tile(np.repeat([2.0, -2.0], 8), (steps + 1, 1))
    return SpaceTime(field, np.tile([1.0, -1.0], (steps, 1)), 4.0, 0.5, horizon, (1.0, 3.0), "w")


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_colours_run_from_blue_over_white_to_orange() -> None:
    found = colours_of(np.array([-9.0, -1.0, 0.0, 0.25, 1.0, 3.0]))
    np.testing.assert_array_equal(found, [rgb(COLOURS[i]) for i in (0, 0, 4, 5, 8, 8)])
    every = np.unique(colours_of(np.linspace(-1, 1, 10_000)), axis=0)
    assert 200 < len(every) <= 256 - 3  # with white and greys they are a GIF's, or a film of 400 steps has 20 MB


def test_a_frame_shows_what_happened_and_leaves_the_rest_empty() -> None:
    blue, orange, later = rgb(COLOURS[0]), rgb(COLOURS[-1]), [LATER] * 3
    for steps in (1, 5, 10):
        image = episode(steps).pixels(101, 120)
        assert image.shape == (120, 101, 3) and image.dtype == np.uint8
        high = 120 - GAP - 2 * STRIP
        done = 10 * steps  # pixels; a frame is one of them at either end
        assert (image[0] == EDGE).all() and (image[high - 1] == EDGE).all() and (image[:high, 0] == EDGE).all()
        np.testing.assert_array_equal(image[high // 4, 1:done], [blue] * (done - 1))  # above
        np.testing.assert_array_equal(image[3 * high // 4, 1:done], [orange] * (done - 1))
        np.testing.assert_array_equal(image[high // 4, done + 1 : -1], np.tile(later, (max(99 - done, 0), 1)))
        np.testing.assert_array_equal(image[-3, :done], [orange] * done)  # the first actuator
        np.testing.assert_array_equal(image[high + GAP + 3, :done], [blue] * done)


def test_the_scale_is_that_of_the_start() -> None:
    for most, limit in ((2.0, 2.0), (2.1, 2.5), (0.31, 0.35), (0.0, 1.0)):
        field = np.zeros((3, 16))
        field[0, 4], field[2, 3] = -most, 50.0
        assert np.isclose(SpaceTime(field, np.zeros((2, 1)), 1.0, 1.0, 2).limit, limit)


def test_an_environment_films_its_episode() -> None:
    environment = make("legato/KuramotoSivashinsky-v0", render_mode="rgb_array", horizon=20)
    environment.reset(seed=0)
    frames = [environment.render()]
    for _ in range(2):
        environment.step(np.full(4, -1.0))
        frames.append(environment.render())
    assert {frame.shape for frame in frames} == {(320, 800, 3)}
    for number, (early, late) in enumerate(itertools.pairwise(frames)):
        changed = (early != late).any(axis=(0, 2)).nonzero()[0]
        assert 40 * number <= changed[0] <= changed[-1] <= 40 * number + 40  # a step is 40 pixels wide
    picture = environment.unwrapped.picture()
    assert (picture.field.shape, picture.actions.shape) == ((3, 64), (2, 4))
    assert make("legato/Burgers-v0").unwrapped.render() is None


def test_a_drawing_names_its_axes_and_marks_its_actuators(tmp_path: Path) -> None:
    drawn = Drawn(space_time(episode(10), tmp_path / "w.svg", title="SAC on plant", note="return -3.0"))
    assert drawn.count("field") == 1
    assert {"SAC on plant", "time", "x", "w", "actions", "\N{MINUS SIGN}2"} <= set(drawn.words)
    assert any(word.startswith("return \N{MINUS SIGN}3.0") for word in drawn.words)
