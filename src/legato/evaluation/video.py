"""Films of a policy at work."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from legato.data.spec import Spec
from legato.envs.environments import GymnasiumEnvironments, make
from legato.errors import LegatoError
from legato.policy import Policy
from legato.rollout import Clock, Rollout, stack

FORMATS = (".mp4", ".gif")


def play(
    policy: Policy[Any],
    environment_id: str,
    spec: Spec,
    clock: Clock,
    seed: int,
    episode: int = 0,
    video: Path | None = None,
    command: Any = (),
) -> tuple[float, int, int]:
    """Play one greedy test episode; film it when `video` is given. Returns (return, primitive steps, decisions).

    `command` is what the policy is asked for.

    Raises `LegatoError` for a video of unknown format, one that exists already, or one whose writer is not installed,
    and for an environment that draws no pictures.
    """
    if episode < 0:
        raise LegatoError(f"episodes are numbered from 0; {episode} was given")
    if video is not None:
        _check(video)
    environment = make(environment_id) if video is None else _drawn(environment_id)
    world = GymnasiumEnvironments(environment_id, [environment])
    rollout = Rollout(world, spec, clock, [seed], "test", once=True, command=command, first_episode=episode)
    frames, ended = [], []
    while not ended:
        _, ended = rollout.run(stack([policy]), 1, None)
        if video is not None:
            frames.append(np.asarray(environment.render()))
    rollout.warn(policy)
    fps = environment.metadata.get("render_fps", 30)
    world.close()
    if video is not None:
        _write(video, frames, fps)
    return ended[0].ret, ended[0].length, ended[0].decisions


def _drawn(environment_id: str) -> gymnasium.Env[Any, Any]:
    try:
        environment = make(environment_id, render_mode="rgb_array")
    except TypeError as problem:
        if "render_mode" not in str(problem):  # what its constructor does not know
            raise
        raise LegatoError(f"'{environment_id}' draws no pictures; leave the video out") from problem
    if "rgb_array" not in environment.metadata.get("render_modes", ()):
        environment.close()
        raise LegatoError(f"'{environment_id}' draws no pictures; leave the video out")
    return environment


def _check(video: Path) -> None:
    if video.suffix not in FORMATS:
        raise LegatoError(f"a video ends in {' or '.join(FORMATS)}; '{video}' was given")
    if video.exists():
        raise LegatoError(f"'{video}' exists and is not overwritten")
    if video.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as problem:
            raise LegatoError("writing .mp4 needs pip install 'legato[video]'; .gif works without") from problem


def _write(video: Path, frames: list[np.ndarray], fps: int) -> None:
    video.parent.mkdir(parents=True, exist_ok=True)
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
