"""`metrics.csv` and TensorBoard events: what a run measured, and how it is gone on with."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from legato.errors import LegatoError, LegatoWarning
from legato.training import files
from legato.training.run import Run, write_text


def kept_history(run: Run, step: int, history: Mapping[str, np.ndarray] | None) -> bytes | None:
    """The part of `metrics.csv` that was written by the time of a checkpoint; None where somebody moved the file away.

    `history` is what the checkpoint knows of it (see `Metrics.state`). Of older ones, which know nothing, the rows up
    to `step` are kept that are whole. Raises `LegatoError` for a file that is not what it was.
    """
    path = run.path / "metrics.csv"
    anew = "move it away to go on with a history that begins there"
    try:
        raw = files.read_bytes(path, files.LARGEST)
    except FileNotFoundError:
        text = f"'{run.place}' has no metrics.csv any more: its history begins at step {step}"
        warnings.warn(LegatoWarning(text), stacklevel=1)
        return None
    if history is not None:
        kept = raw[: int(history["bytes"])]
        if _hash(kept).digest() != history["digest"].tobytes():
            raise LegatoError(f"'{path}' is not what it was at step {step}: put it back, or {anew}")
        return kept
    try:
        head, *rows = [line.split(",") for line in raw.decode().splitlines()] or [[""]]
        if head[:2] != ["step", "seed"]:
            raise ValueError("its first line does not name the columns")
        kept = [head, *(row for row in rows if len(row) == len(head) and int(row[0]) <= step)]
    except ValueError as problem:
        raise LegatoError(f"'{path}' cannot be gone on with from step {step} ({problem}): {anew}") from problem
    return "".join(",".join(row) + "\n" for row in kept).encode()


def _hash(raw: bytes) -> Any:
    return hashlib.blake2b(raw, digest_size=16)


class Metrics:
    """`metrics.csv` and TensorBoard events. Clock times go to TensorBoard only, so that equal runs have equal files.

    A resumed run goes on after the history that it `kept` up to the step `resume_at`.
    """

    def __init__(self, run: Run, columns: list[str], resume_at: int | None = None, kept: bytes | None = None):
        self.path = run.path / "metrics.csv"
        self.columns = ["step", "seed", *columns]
        kept = (",".join(self.columns) + "\n").encode() if kept is None else kept
        self.columns = kept.decode().partition("\n")[0].split(",")  # a file has those that it began with
        write_text(self.path, kept.decode())
        self.written, self.hash = len(kept), _hash(kept)
        self.file = self.path.open("ab")
        self.events = Events(run.path / "tensorboard", resume_at)

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint has to know of the file, which is safely on disk then: its length and a digest."""
        os.fsync(self.file.fileno())
        return {"bytes": np.array(self.written), "digest": np.frombuffer(self.hash.digest(), np.uint8)}

    def write(self, step: int, seed: int, values: dict[str, float]) -> None:
        """One row. Columns without a value stay empty; values are written so that they read back bit for bit."""
        row = {"step": step, "seed": seed, **values}
        line = (",".join(repr(row[c]) if c in row else "" for c in self.columns) + "\n").encode()
        self.file.write(line)
        self.file.flush()
        self.written += len(line)
        self.hash.update(line)
        for name, value in values.items():
            self.events.write(f"seed-{seed}/{name}", value, step)

    def speed(self, step: int, per_second: float, what: str = "steps") -> None:
        self.events.write(f"speed/{what}_per_second", per_second, step)

    def close(self) -> None:
        self.file.close()
        self.events.close()


class Events:
    """TensorBoard's events, each with the system as soon as it is written, so that a kill loses none.

    Those after `resume_at` that an earlier session left are discarded by TensorBoard.
    """

    def __init__(self, folder: Path, resume_at: int | None = None):
        from tensorboardX.proto import event_pb2

        kinds: Any = event_pb2
        self.kind = kinds.Event
        folder.mkdir(exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)  # TensorBoard reads files in the order of their names
        self.file = (folder / f"events.out.tfevents.{seconds:010d}.{rest:09d}").open("xb")
        first = 0 if resume_at is None else resume_at + 1  # what is discarded: this step and all later ones
        self._write(step=first, file_version="brain.Event:2")
        if resume_at is not None:
            self._write(step=first, session_log=kinds.SessionLog(status=kinds.SessionLog.START))

    def write(self, name: str, value: float, step: int) -> None:
        from tensorboardX.summary import scalar

        self._write(step=step, summary=scalar(name, value))

    def _write(self, **fields: Any) -> None:
        """A record: the event's length and the event, each followed by a checksum."""
        from tensorboardX.record_writer import masked_crc32c

        event = self.kind(wall_time=time.time(), **fields).SerializeToString()
        for part in (struct.pack("<Q", len(event)), event):
            self.file.write(part + struct.pack("<I", masked_crc32c(part)))
        self.file.flush()

    def close(self) -> None:
        self.file.close()
