"""Logged images: bytes from file to device, in the shape that they have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import formats, normaliser, report, sets
from legato.data.streams import Stream
from legato.data.trajectories import Trajectories, fingerprint, from_episodes, trajectories
from legato.data.transitions import transitions
from legato.data.windows import BatchSpec, episodes
from legato.errors import LegatoError, LegatoWarning

SHAPE = (5, 4, 3)
BYTES = 60


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    """Three episodes of 4, 1 and 3 steps: the first terminates, the others are truncated."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "observations": rng.integers(256, size=(8, *SHAPE), dtype=np.uint8),
        "actions": rng.uniform(-1, 1, (8, 1)).astype(np.float32),
        "rewards": np.arange(8, dtype=np.float32),
        "terminals": np.array([0, 0, 0, 1, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 1, 0, 0, 1], bool),
        "ends": rng.integers(256, size=(3, *SHAPE), dtype=np.uint8),
        "low": np.array([-1.0]),
        "high": np.array([1.0]),
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def read(path: Path, **changes: Any) -> Trajectories:
    np.savez(path, **arrays(**changes))
    return formats.load(path)


@pytest.mark.parametrize("kind", ["logs.npz", "logs.hdf5", "logs.arrays"])
def test_images_come_back_from_a_file_as_they_went(kind: str, tmp_path: Path) -> None:
    data = read(tmp_path / "given.npz")
    formats.save(data, tmp_path / kind)
    again = formats.load(tmp_path / kind)
    for found in (data, again):
        assert found.about.shape == SHAPE
        assert found.observations.dtype == np.uint8
        np.testing.assert_array_equal(found.observations, arrays()["observations"].reshape(8, BYTES))
        np.testing.assert_array_equal(found.final_observations, arrays()["ends"].reshape(3, BYTES))
    assert fingerprint(data) == fingerprint(again)
    if kind == "logs.hdf5":
        with h5py.File(tmp_path / kind) as file:
            stored: Any = file["observations"]
            assert (stored.shape, stored.dtype) == ((8, *SHAPE), np.uint8)


def test_grey_images_need_no_channels(tmp_path: Path) -> None:
    given = arrays()
    data = read(tmp_path / "a.npz", observations=given["observations"][..., 0], ends=given["ends"][..., 0])
    assert data.about.shape == SHAPE[:2]
    assert data.observations.shape == (8, 20)


def test_next_images_say_where_an_episode_ended(tmp_path: Path) -> None:
    """And are not kept beside the images themselves, but for the last ones; bytes are compared as numbers."""
    given = arrays()
    observations, offsets = given["observations"], [0, 4, 5, 8]
    next_observations = np.concatenate([observations[1:], given["ends"][:1]])
    next_observations[np.array(offsets[1:]) - 1] = given["ends"]
    data = read(tmp_path / "a.npz", next_observations=next_observations, ends=None)
    np.testing.assert_array_equal(data.final_observations, given["ends"].reshape(3, BYTES))
    next_observations[5] = 255 - next_observations[5]
    with pytest.warns(LegatoWarning, match="1 of 8 steps lead to another observation"):
        torn = read(tmp_path / "b.npz", next_observations=next_observations, ends=None)
    np.testing.assert_array_equal(torn.offsets, [0, 4, 5, 6, 8])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ends": np.zeros((3, 5, 4), np.uint8)}, r"images of shape \(5, 4, 3\) in bytes"),
        ({"ends": np.zeros((3, *SHAPE), np.float32)}, r"images of shape \(5, 4, 3\) in bytes"),
        ({"observations": arrays()["observations"] / 255}, r"are flat, \[steps, numbers\]"),
    ],
)
def test_what_is_no_image_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match=message):
        read(tmp_path / "a.npz", **changes)


def test_images_lie_on_the_device_once_and_in_bytes() -> None:
    """What follows a step is found by the number of its row."""
    data = logs(steps=40)
    placed = transitions(data)
    assert placed.observations.dtype == jnp.uint8
    assert placed.observations.nbytes == (40 + len(data)) * BYTES
    outcome = placed.at(jnp.arange(40))
    last = data.offsets[1:] - 1
    next_observations = np.concatenate([data.observations[1:], data.observations[:1]])
    next_observations[last] = data.final_observations
    np.testing.assert_array_equal(outcome.next_observation, next_observations)
    assert episodes(data).observations.nbytes == 40 * BYTES


def logs(steps: int) -> Trajectories:
    rng = np.random.default_rng(1)
    over = np.arange(1, steps + 1) % 8 == 0
    return trajectories(
        rng.integers(256, size=(steps, *SHAPE), dtype=np.uint8),
        rng.uniform(-1, 1, (steps, 1)),
        np.ones(steps),
        np.zeros(steps, bool),
        over,
        final_observations=rng.integers(256, size=(over.sum(), *SHAPE), dtype=np.uint8),
    )


def test_windows_are_bytes_on_either_side() -> None:
    data, draw = logs(steps=40), BatchSpec(3, 6)
    window = episodes(data).draw(jax.random.key(0), draw)
    with Stream(data, [0], draw, chunk=2) as stream:
        streamed = stream.take()
    assert window.observations.dtype == streamed.observations.dtype == np.uint8
    assert window.observations.shape == streamed.observations.shape[2:] == (3, 6, BYTES)
    assert not np.asarray(window.observations)[~np.asarray(window.mask)].any()


def test_statistics_of_images_are_those_of_bytes() -> None:
    data = logs(steps=40)
    found = normaliser.of(data.observations)
    np.testing.assert_allclose(found(jnp.asarray(data.observations)), data.observations / 255, atol=1e-6)
    assert found.mean.shape == (1,)


def test_sets_of_images_are_merged_only_if_their_shapes_are_one() -> None:
    data = logs(steps=16)
    both = sets.merge([data, data], "both")
    assert both.observations.dtype == np.uint8
    assert len(both) == 4
    other = replace(data, about=replace(data.about, shape=(4, 5, 3)))
    with pytest.raises(LegatoError, match="differ in shapes of images"):
        sets.merge([data, other], "both")


def test_single_episodes_of_images_are_joined() -> None:
    images = np.random.default_rng(0).integers(256, size=(4, *SHAPE), dtype=np.uint8)
    none = np.zeros(3, bool)
    episode = {"observations": images, "actions": np.zeros((3, 1)), "terminations": none, "truncations": none}
    data = from_episodes([episode, episode])
    assert data.about.shape == SHAPE
    np.testing.assert_array_equal(data.final_observations, images[-1:].repeat(2, axis=0).reshape(2, BYTES))


def test_images_are_not_written_where_they_would_change() -> None:
    with pytest.raises(LegatoError, match="Minari keeps images as JPEG"):
        formats.save(logs(steps=16), "mine/images/some-v0")


def test_a_report_names_the_shape() -> None:
    found = report.report(logs(steps=40))
    assert dict(found.summary)["observation"] == "image of 5 x 4 x 3 bytes"
    assert [name for name, *_ in found.ranges] == ["action 0"]
