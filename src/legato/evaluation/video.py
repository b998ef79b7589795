"""Films: what an environment shows, step by step, and motions side by side."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from legato.envs.checked import Checked
from legato.envs.construction import EnvironmentConfig, make
from legato.errors import LegatoError

FORMATS = (".mp4", ".gif")
SLOW = 25  # steps per second of motions that are compared


def beside(
    environment: str | EnvironmentConfig, motions: dict[str, Float32[np.ndarray, "steps obs"]], video: Path
) -> Path:
    """Film several motions side by side, each named: sequences of observations of one MuJoCo environment.

    A posture is read from each observation, and drawn; what observations leave out of it, the position in space, is
    integrated from the velocities. Where a motion has ended (NaN), it stands still. The film shows at most `SLOW`
    steps a second. Raises `LegatoError` for what `check_film` refuses, for an environment that draws no pictures or
    whose observations are no postures, and where there is nothing to draw with.
    """
    ready(video, environment)
    made = make_rendering(environment)
    try:
        pictures = [_pictures(made, made.name, name, motion) for name, motion in motions.items()]
    finally:
        made.close()
    fps = min(made.metadata.get("render_fps", 30), SLOW)
    write_film(video, [np.concatenate(frames, axis=1) for frames in zip(*pictures, strict=True)], fps)
    return video


def ready(video: Path, environment: str | EnvironmentConfig | None) -> Path:
    """Raise `LegatoError` now for what `beside` would refuse later: a film that cannot be written or drawn."""
    check_film(video)
    if environment is None:
        raise LegatoError("a film needs an environment, and neither the run nor its data names one")
    made = make_rendering(environment)
    try:
        observation, _ = made.reset(seed=0)
        _pictures(made, made.name, "", np.asarray(observation, np.float32)[None])
    finally:
        made.close()
    return video


def _pictures(
    environment: Any, environment_id: str, name: str, motion: Float32[np.ndarray, "steps obs"]
) -> list[np.ndarray]:
    """One picture per step, with the motion's name."""
    from PIL import Image, ImageDraw

    simulation = environment.unwrapped
    frames = []
    environment.reset(seed=0)
    for positions, velocities in postures(environment, environment_id, motion):
        simulation.set_state(positions, velocities)
        picture = Image.fromarray(picture_of(environment, environment_id))
        ImageDraw.Draw(picture).text((12, 10), name, fill="white", stroke_width=2, stroke_fill="black", font_size=24)
        frames.append(np.asarray(picture))
    return frames


def postures(
    environment: Any, environment_id: str, motion: Float32[np.ndarray, "steps obs"]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions, velocities) of each observation, for an environment that observes these two, but for where its first
    one or two coordinates are: they are integrated. After an end (NaN) the last posture stays.

    Raises `LegatoError` for another kind of environment.
    """
    model = getattr(environment.unwrapped, "model", None)
    nq, nv = (getattr(model, "nq", 0), getattr(model, "nv", 0))
    left_out = nq + nv - motion.shape[1]
    if nq == 0 or not 0 <= left_out <= 2:
        raise LegatoError(f"'{environment_id}' does not observe the postures of a MuJoCo body: there is no film of it")
    found: list[tuple[np.ndarray, np.ndarray]] = []
    place = np.zeros(left_out)
    for observation in np.asarray(motion, np.float64):
        if np.isnan(observation).any():
            found.append(found[-1] if found else (np.zeros(nq), np.zeros(nv)))
            continue
        seen, velocities = observation[: nq - left_out], observation[nq - left_out :]
        found.append((np.concatenate([place, seen]), velocities))
        place = place + environment.unwrapped.dt * velocities[:left_out]
    return found


def make_rendering(environment: str | EnvironmentConfig) -> Checked:
    """An environment that shows pictures. Raises `LegatoError` for one that draws none."""
    name = environment if isinstance(environment, str) else environment.name
    if not any(os.environ.get(display) for display in ("DISPLAY", "WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or it complains that there is none
    try:
        made = make(environment, render_mode="rgb_array")
    except LegatoError as problem:
        if "render_mode" not in str(problem.__cause__):  # what its constructor does not know
            raise
        raise LegatoError(f"'{name}' draws no pictures to film") from problem
    if "rgb_array" not in made.metadata.get("render_modes", ()):
        made.close()
        raise LegatoError(f"'{name}' draws no pictures to film")
    return made


def picture_of(environment: Any, name: str) -> np.ndarray:
    """What an environment shows. Raises `LegatoError` where there is nothing to draw with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what goes wrong is raised, and said once
            return np.asarray(environment.render())
    except LegatoError:
        raise
    except Exception as problem:  # every library to draw with has errors of its own
        mujoco = hasattr(environment.unwrapped, "model")
        hint = "set MUJOCO_GL to egl, osmesa or glfw, whichever is installed"
        cause = hint if mujoco else " ".join(f"{type(problem).__name__}: {problem}".split())
        raise LegatoError(f"'{name}' cannot be drawn here: {cause}") from problem


def check_film(video: Path) -> None:
    """Raise `LegatoError` for a film of unknown format, one that exists already, or whose writer is not installed."""
    if video.suffix not in FORMATS:
        raise LegatoError(f"a video ends in {' or '.join(FORMATS)}; '{video}' was given")
    if video.exists():
        raise LegatoError(f"'{video}' exists and is not overwritten; choose another `out`")
    if video.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as problem:
            raise LegatoError("writing .mp4 needs pip install 'legato[video]'; .gif works without") from problem


def write_film(video: Path, frames: list[np.ndarray], fps: int) -> None:
    """Write a film, under another name first, so that what is cut off by a full disk or a signal is no film."""
    video.parent.mkdir(parents=True, exist_ok=True)
    temporary = video.with_name(f".{video.stem}.writing{video.suffix}")
    try:
        _encode(temporary, frames, fps)
        os.replace(temporary, video)
    except OSError as problem:
        raise LegatoError(f"'{video}' could not be written: {problem.strerror or problem}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _encode(video: Path, frames: list[np.ndarray], fps: int) -> None:
    if video.suffix == ".gif":
        from PIL import Image

        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(video, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
        return
    import imageio_ffmpeg

    height, width = (n - n % 2 for n in frames[0].shape[:2])  # the codec wants even sizes
    writer = imageio_ffmpeg.write_frames(str(video), (width, height), fps=fps, macro_block_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX fears any fork; this one becomes ffmpeg at once
        writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame[:height, :width]))
    writer.close()
