"""The state of a training run on disk, by Orbax: written aside and renamed, so a kill leaves the one before intact.

A digest of all arrays is a part of what is written, so that none is ever read back as another.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from legato.errors import LegatoError
from legato.training.renamed import with_present_states

Tree = dict[str, Any]  # nested dicts of NumPy arrays
_DIGEST = "digest"  # no name of an array, all of which have a slash


class Checkpoints:
    """The newest checkpoints of a run, by step. Writing happens in the background; `wait` before reading or leaving."""

    def __init__(self, folder: Path, keep: int = 2, create: bool = True):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is raised, and said once
        self.folder = folder.absolute()
        try:
            _only_files(self.folder)  # Orbax reads some of them before it is asked to
        except ValueError as problem:
            raise LegatoError(f"'{self.folder}' is damaged ({problem}): put the file itself there") from problem
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=create)
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, tree: Tree) -> None:
        """Write `tree`, whose arrays must not change afterwards. A checkpoint of the same step is kept as it is."""
        if step in self.manager.all_steps():
            return
        empty, full = {}, {}
        flat = _flatten(tree)
        for name, array in flat.items():  # Orbax refuses arrays without elements: keep their shapes aside
            (full if array.size else empty)[name] = array
        shapes: dict[str, Any] = {name: [list(array.shape), str(array.dtype)] for name, array in empty.items()}
        shapes[_DIGEST] = _digest(step, flat)
        with self._writing():
            self.manager.save(
                step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(full), empty=ocp.args.JsonSave(shapes))
            )

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(self.manager.all_steps())

    def load(self, step: int | None = None) -> tuple[int, Tree]:
        """The checkpoint of `step`, by default the newest. Raises `LegatoError` when there is none or it is damaged."""
        steps = self.steps()
        if not steps:
            raise LegatoError(f"'{self.folder}' holds no checkpoint: the run ended before its first one")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise LegatoError(
                f"no checkpoint of step {step} in '{self.folder}'; there are {', '.join(map(str, steps))}"
            )
        _hush()
        try:
            restored = self.manager.restore(
                step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(), empty=ocp.args.JsonRestore())
            )
            arrays = {name: np.array(array) for name, array in restored["arrays"].items()}
            digest = restored["empty"].pop(_DIGEST, None)  # older checkpoints have none
            for name, (shape, dtype) in restored["empty"].items():
                if 0 not in shape:
                    raise ValueError(f"'{name}' is not empty")
                arrays[name] = np.zeros(shape, dtype)
            if digest is not None and digest != _digest(step, arrays):
                raise ValueError("the arrays are not those that were written")
        except Exception as problem:  # Orbax and TensorStore raise many kinds; each means that it cannot be read
            older = [s for s in steps if s < step]
            advice = f"resume from an older one with `from_step={older[-1]}`" if older else "there is no older one"
            raise LegatoError(f"the checkpoint '{self.folder / str(step)}' is damaged; {advice}") from problem
        return step, with_present_states(_unflatten(arrays))

    @contextmanager
    def restoring(self, state: Tree, seeds: int, members: int | None = None) -> Iterator[None]:
        """Around what is made of a `state`: refuses that of a run of other seeds, environments or of another kind.

        Raises `LegatoError`.
        """
        try:
            found = len(state["loop"]["best"]), None if members is None else len(state["rollout"]["episode"])
            if found != (seeds, members):
                raise ValueError(f"it has {found[0]} seeds and {found[1] or 'no'} environments")
            yield
        except (KeyError, ValueError, TypeError, IndexError) as problem:
            raise LegatoError(f"'{self.folder}' holds no checkpoint of this run ({problem}): copy it anew") from problem

    def discard_after(self, step: int) -> None:
        """Remove checkpoints newer than `step`: the run goes on from there."""
        for newer in [s for s in self.steps() if s > step]:
            self.manager.delete(newer)

    def wait(self) -> None:
        """Until everything is written. Raises `LegatoError` when it could not be."""
        with self._writing():
            self.manager.wait_until_finished()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        _hush()
        try:
            yield
        except Exception as problem:  # TensorStore's errors come as many kinds, the system's own number in their text
            number = re.search(r"os_error_code='(\d+)'", str(problem))
            cause = os.strerror(int(number[1])) if number else " ".join(str(problem).split())
            saved = self.steps()
            kept = f"that of step {saved[-1]} is kept" if saved else "there was none before"
            raise LegatoError(f"a checkpoint could not be written to '{self.folder}': {cause}; {kept}") from problem

    def close(self) -> None:
        self.wait()
        self.manager.close()


def _only_files(folder: Path) -> None:
    """Refuse pipes and devices, of which reading might never end."""
    for place, _, names in os.walk(folder):
        for name in names:
            if not os.path.isfile(os.path.join(place, name)):
                raise ValueError(f"'{name}' is no regular file")


def _digest(step: int, flat: dict[str, np.ndarray]) -> str:
    """Of a checkpoint's step and every array's name, shape, type and bytes."""
    found = hashlib.blake2b(str(step).encode(), digest_size=16)
    for name, array in sorted(flat.items()):
        check = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # quick: a replay is large
        found.update(f"{name} {array.shape} {array.dtype} {check}\n".encode())
    return found.hexdigest()


@functools.cache
def _hush() -> None:
    """From now on say nothing of reads and writes that answer too late.

    When one fails, Orbax closes the event loop to which TensorStore still answers the others, and each answer
    prints a traceback beside the one error that matters; so does asyncio for those that fail as well. What it had not
    begun to read by then is warned of.
    """
    never = r"coroutine '\w+Handler\.\w+' was never awaited"
    warnings.filterwarnings("ignore", message=never, category=RuntimeWarning)
    logging.getLogger("asyncio").addFilter(lambda record: "OCDBT" not in str(record.exc_info))
    heard = sys.unraisablehook

    def hook(problem: Any) -> None:
        if str(problem.exc_value) != "Event loop is closed":
            heard(problem)

    sys.unraisablehook = hook


def _flatten(tree: Tree, prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(value)
    return flat


def _unflatten(flat: dict[str, np.ndarray]) -> Tree:
    tree: Tree = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return tree
