"""Films: every step is a frame, and nothing is overwritten."""

from __future__ import annotations

import itertools
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from PIL import Image
from tests.tiny import WIDE, Diary, Scribe, environments

from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.evaluation.episodes import play_episode
from legato.evaluation.video import beside, postures, ready
from legato.policy import OpenLoop, Policy, Step
from legato.rollout import Clock, episode_seed, episodes, stack

SCRIBE = Scribe(jnp.ones(()))


class Cinema(Diary):
    """After step t, shows a picture as bright as 20 t, of odd height and width."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        super().__init__(limit=9)
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((33, 47, 3), 20 * self.t, np.uint8)


@pytest.fixture
def cinema(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(gymnasium.registry, "Cinema-v0", EnvSpec("Cinema-v0", Cinema))
    return "Cinema-v0"


def test_the_episode_is_the_test_episode_of_its_number(cinema: str) -> None:
    """Return, steps and decisions as an evaluation of that seed has them."""
    for number in (0, 2):
        diaries = [Diary(limit=9) for _ in range(3)]
        returns = episodes(stack([SCRIBE]), environments(*diaries), WIDE, Clock(4, delay=1), [5], "test")
        ret, steps, decisions = play_episode(SCRIBE, cinema, WIDE, Clock(4, delay=1), 5, number)
        assert diaries[number].seeds == [episode_seed(5, "test", number)]
        assert ret == pytest.approx(returns[0, number], rel=1e-6)
        assert (steps, decisions) == (9, 3)
    assert len(set(returns[0])) == 3


def test_every_step_is_a_frame_of_the_gif(cinema: str, tmp_path: Path) -> None:
    path = tmp_path / "films" / "one.gif"
    without = play_episode(SCRIBE, cinema, WIDE, Clock(2), 0)
    assert play_episode(SCRIBE, cinema, WIDE, Clock(2), 0, video=path) == without
    with Image.open(path) as film:
        assert film.n_frames == 9
        assert film.size == (47, 33)
        assert film.info["loop"] == 0
        brightness = []
        for i in range(film.n_frames):
            film.seek(i)
            assert film.info["duration"] == 40  # milliseconds at 25 frames a second
            brightness.append(np.asarray(film.convert("L")).mean())
    np.testing.assert_allclose(brightness, 20 * np.arange(1, 10), atol=4)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SimpleNamespace(), "set MUJOCO_GL to egl, osmesa or glfw, whichever is installed"),
        (None, "RuntimeError: no display"),
    ],
)
def test_a_machine_that_cannot_draw_is_one_line(
    body: Any, words: str, cinema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cinema: Cinema) -> None:
        warnings.warn("GLFWError", stacklevel=1)
        raise RuntimeError("no\ndisplay")

    monkeypatch.setattr(Cinema, "render", fail)
    if body is not None:
        monkeypatch.setattr(Cinema, "model", body, raising=False)
    with warnings.catch_warnings(), pytest.raises(LegatoError) as problem:
        warnings.simplefilter("error")
        play_episode(SCRIBE, cinema, WIDE, Clock(2), 0, video=tmp_path / "a.gif")
    assert str(problem.value) == f"'Cinema-v0' cannot be drawn here: {words}"
    assert list(tmp_path.iterdir()) == []


def test_every_step_is_a_frame_of_the_mp4(cinema: str, tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "one.mp4"
    play_episode(SCRIBE, cinema, WIDE, Clock(2), 0, video=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX fears any fork
        frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
        film = imageio_ffmpeg.read_frames(str(path))
        size = next(film)["size"]
        film.close()
    assert frames == 9
    assert seconds == pytest.approx(9 / 25, abs=0.05)
    assert size == (46, 32)  # the codec wants even sizes


def test_a_world_of_gymnasiums_is_filmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setitem(gymnasium.registry, "Short-v1", replace(gymnasium.spec("Pendulum-v1"), max_episode_steps=4))
    policy = OpenLoop(jnp.array([[2.0], [-2.0]]))
    _, steps, _ = play_episode(policy, "Short-v1", Spec(3, (-2.0,), (2.0,)), Clock(1), 0, video=tmp_path / "swing.gif")
    with Image.open(tmp_path / "swing.gif") as film:
        assert film.n_frames == steps == 4
        pictures = []
        for i in range(4):
            film.seek(i)
            pictures.append(np.asarray(film.convert("RGB")).astype(float))
    assert all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(pictures))  # it moves


class Obeying(Policy[Any]):
    """Acts as it is told to."""

    def init_state(self, command: Any) -> Any:
        return jnp.asarray(command, float)

    def observe(self, state: Any, step: Step) -> Any:
        return state

    def decide(self, state: Any, key: Any, length: int) -> Any:
        return jnp.full((length, 4), state), state


def test_a_policy_is_told_what_is_asked_of_it(cinema: str) -> None:
    """A reward is a quarter of the action, less the step."""
    for asked in (8.0, 20.0):
        assert play_episode(Obeying(), cinema, WIDE, Clock(1), 0, command=asked)[0] == 9 * asked / 4 - 36


def test_a_world_without_pictures_is_played_but_not_filmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose constructor knows no render mode, or knows only others."""

    class Ascii(Diary):
        metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

        def __init__(self, render_mode: str | None = None):
            super().__init__(limit=9)

    monkeypatch.setitem(gymnasium.registry, "Dark-v0", EnvSpec("Dark-v0", lambda: Diary(limit=9)))
    monkeypatch.setitem(gymnasium.registry, "Ascii-v0", EnvSpec("Ascii-v0", Ascii))
    for name in ("Dark-v0", "Ascii-v0"):
        assert play_episode(SCRIBE, name, WIDE, Clock(4), 0)[1:] == (9, 3)
        with pytest.raises(LegatoError, match=f"^'{name}' draws no pictures to film$"):
            play_episode(SCRIBE, name, WIDE, Clock(4), 0, video=tmp_path / "one.gif")
    assert not list(tmp_path.iterdir())


# --- refused, before anything is played ---


@pytest.fixture
def unplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    from legato.evaluation import episodes, video

    for module in (episodes, video):
        monkeypatch.setattr(module, "make", lambda *args, **kwargs: pytest.fail("it was played"))


@pytest.mark.parametrize("name", ["film", "film.avi", "film.GIF", "gif", "film.mp4.txt"])
def test_another_format_is_refused(unplayed: None, tmp_path: Path, name: str) -> None:
    with pytest.raises(LegatoError) as problem:
        play_episode(SCRIBE, "Pendulum-v1", WIDE, Clock(1), 0, video=tmp_path / name)
    assert str(problem.value) == f"a video ends in .mp4 or .gif; '{tmp_path / name}' was given"


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_an_existing_film_is_not_overwritten(unplayed: None, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(LegatoError, match=r"film\.\w+' exists and is not overwritten"):
        play_episode(SCRIBE, "Pendulum-v1", WIDE, Clock(1), 0, video=tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"


def test_mp4_without_its_writer_says_what_to_do(
    unplayed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # type: ignore[arg-type]
    with pytest.raises(LegatoError, match=r"writing \.mp4 needs pip install 'legato\[video\]'; \.gif works without"):
        play_episode(SCRIBE, "Pendulum-v1", WIDE, Clock(1), 0, video=tmp_path / "film.mp4")


def test_a_missing_renderer_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)  # type: ignore[arg-type]
    policy, spec = OpenLoop(jnp.zeros((1, 1))), Spec(3, (-2.0,), (2.0,))
    with pytest.raises(LegatoError, match=r"needs a package that is missing: pip install 'legato\[classic\]'"):
        play_episode(policy, "Pendulum-v1", spec, Clock(1), 0, video=tmp_path / "film.gif")
    assert not list(tmp_path.iterdir())


def test_episodes_are_numbered_from_zero(unplayed: None) -> None:
    with pytest.raises(LegatoError, match="episodes are numbered from 0; -1 was given"):
        play_episode(SCRIBE, "Pendulum-v1", WIDE, Clock(1), 0, episode=-1)


# --- motions side by side ---


class Puppet(gymnasium.Env):
    """A body on a line: observes its height and two velocities. Its picture is as bright as its place, unobserved."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 125}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    model = SimpleNamespace(nq=2, nv=2)
    dt = 0.5

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(3, np.float32), {}

    def set_state(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        self.at = positions, velocities

    def render(self) -> Any:
        return np.full((64, 48, 3), 10 * self.at[0][0], np.uint8)


@pytest.fixture
def puppet(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(gymnasium.registry, "Puppet-v0", EnvSpec("Puppet-v0", Puppet))
    return "Puppet-v0"


def test_motions_stand_side_by_side_and_places_are_integrated(puppet: str, tmp_path: Path) -> None:
    fast, slow = (np.tile(np.array([1.0, speed, 0.0], np.float32), (5, 1)) for speed in (10, 4))
    slow[3:] = np.nan  # ended: it stands still
    path = beside(puppet, {"fast": fast, "slow": slow}, tmp_path / "films" / "two.gif")
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (5, (96, 64), 40)  # slower than it is
        for i, (left, right) in enumerate(zip((0, 50, 100, 150, 200), (0, 20, 40, 40, 40), strict=True)):
            film.seek(i)
            picture = np.asarray(film.convert("L")).astype(float)
            assert picture[50:, :48].mean() == pytest.approx(left, abs=4)
            assert picture[50:, 48:].mean() == pytest.approx(right, abs=4)
            if i == 0:
                assert picture[:40, :48].max() > 150  # its name


def test_what_cannot_be_drawn_is_refused(
    puppet: str, cinema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    motion = np.zeros((2, 3), np.float32)
    for name, path, problem in (
        (cinema, "a.gif", "'Cinema-v0' does not observe the postures of a MuJoCo body: there is no film of it"),
        (puppet, "a.avi", r"a video ends in \.mp4 or \.gif"),
        (None, "a.gif", "a film needs an environment, and neither the run nor its data names one"),
    ):
        with pytest.raises(LegatoError, match=problem):
            ready(tmp_path / path, name)
    wide = np.zeros((2, 9), np.float32)
    with pytest.raises(LegatoError, match="does not observe the postures"):
        beside(puppet, {"wide": wide}, tmp_path / "a.gif")

    def broken(self: Puppet) -> Any:
        raise AttributeError("no library")

    monkeypatch.setattr(Puppet, "render", broken)
    with pytest.raises(LegatoError, match="'Puppet-v0' cannot be drawn here: set MUJOCO_GL to egl, osmesa or glfw"):
        beside(puppet, {"one": motion}, tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_postures_are_those_that_were_observed(name: str) -> None:
    """Put back into the body, an observation is observed again; the place is that of the body, nearly."""
    pytest.importorskip("mujoco")
    environment = gymnasium.make(name)
    observation, _ = environment.reset(seed=0)
    environment, seen, places = environment.unwrapped, [observation], [environment.unwrapped.data.qpos[0]]  # type: ignore
    for _ in range(20):
        seen.append(environment.step(environment.action_space.sample())[0])
        places.append(environment.data.qpos[0])  # type: ignore[attr-defined]
    found = postures(environment, name, np.stack(seen).astype(np.float32))
    for observation, (positions, velocities) in zip(seen, found, strict=True):
        environment.set_state(positions, velocities)  # type: ignore[attr-defined]
        np.testing.assert_allclose(environment._get_obs(), observation, atol=1e-5)  # type: ignore[attr-defined]
    walked = np.array([positions[0] for positions, _ in found])
    np.testing.assert_allclose(walked, np.array(places) - places[0], atol=0.1)
    environment.close()
