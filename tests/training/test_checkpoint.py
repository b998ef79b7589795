"""Checkpoints: what goes in comes out, only the newest stay, and a damaged one is refused and never read as another."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from legato.errors import LegatoError, LegatoWarning
from legato.training import checkpoint, online
from legato.training.checkpoint import Checkpoints
from legato.training.run import Run


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    yield checkpoints
    checkpoints.close()


def tree(seed: int) -> dict[str, Any]:
    """Every kind of array that a loop carries."""
    rng = np.random.default_rng(seed)
    return {
        "learner": {"actor.l1.weight": rng.standard_normal((30, 40)).astype(np.float32), "updates": np.array(seed)},
        "rollout": {
            "memory": {str(i): rng.standard_normal((2, i)).astype(np.float32) for i in range(3)},  # one is empty
            "first": np.array([True, False]),
            "actions": np.zeros((0, 3), np.float32),
            "best": np.array([-np.inf, np.nan]),
            "episode": np.arange(5, dtype=np.int64) + 2**40,
        },
        "loop": {"episodes": np.zeros((0, 3), np.float64)},
        "sums": {},
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    expected = {name: part for name, part in expected.items() if part != {}}  # what holds nothing leaves nothing
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def test_what_goes_in_comes_out(checkpoints: Checkpoints) -> None:
    checkpoints.save(7, tree(7))
    checkpoints.wait()
    step, found = checkpoints.load()
    assert step == 7
    same(found, tree(7))


def test_a_disk_that_takes_no_more_is_said_in_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    """Files may not grow beyond a limit here, which the system refuses as it refuses a full disk."""
    checkpoints, before = Checkpoints(tmp_path / "checkpoints"), resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints.save(1, tree(1))
    checkpoints.wait()
    large = {"learner": {"weight": np.random.default_rng(0).standard_normal(10**6)}}
    words = "a checkpoint could not be written to '.*': File too large; that of step 1 is kept"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1]))
    try:
        with pytest.raises(LegatoError, match=words) as refused:
            checkpoints.save(2, large)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(refused.value)
    step, found = Checkpoints(tmp_path / "checkpoints", create=False).load()
    assert step == 1
    same(found, tree(1))


def test_the_newest_two_are_kept_and_either_can_be_read_in_another_process(checkpoints: Checkpoints) -> None:
    for step in (10, 20, 30):
        checkpoints.save(step, tree(step))
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30]
    later = Checkpoints(checkpoints.folder)
    assert later.load()[0] == 30
    same(later.load(20)[1], tree(20))
    with pytest.raises(LegatoError, match=r"no checkpoint of step 10 in .*; there are 20, 30"):
        later.load(10)
    later.close()


def test_the_same_step_is_kept_as_it_is(checkpoints: Checkpoints) -> None:
    checkpoints.save(10, tree(1))
    checkpoints.wait()
    checkpoints.save(10, tree(2))
    checkpoints.wait()
    same(checkpoints.load()[1], tree(1))


def test_going_back_discards_what_is_newer(checkpoints: Checkpoints) -> None:
    for step in (10, 20):
        checkpoints.save(step, tree(step))
    checkpoints.wait()
    checkpoints.discard_after(10)
    assert checkpoints.steps() == [10]
    checkpoints.save(20, tree(99))
    checkpoints.wait()
    same(checkpoints.load()[1], tree(99))


def test_nothing_there(checkpoints: Checkpoints) -> None:
    with pytest.raises(LegatoError, match="holds no checkpoint: the run ended before its first one"):
        checkpoints.load()


# --- damage ---


def files(folder: Path) -> list[Path]:
    """Smallest first."""
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def data(folder: Path) -> Path:
    """The file that the arrays are read from. Orbax leaves another of its size behind, which nobody reads."""
    return files(folder / "arrays" / "d")[-1]


def flip(folder: Path) -> None:
    content = bytearray(data(folder).read_bytes())
    content[len(content) // 3] ^= 4
    data(folder).write_bytes(content)


def delete_manifests(folder: Path) -> None:
    found = [p for p in files(folder) if "manifest" in p.name]
    assert found
    for path in found:
        path.unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut in half": lambda folder: halve(data(folder)),
    "one bit flipped": flip,
    "data gone": lambda folder: data(folder).unlink(),
    "manifests gone": delete_manifests,
    "arrays gone": lambda folder: shutil.rmtree(folder / "arrays"),
    "shapes gone": lambda folder: shutil.rmtree(folder / "empty"),
    "emptied": lambda folder: [p.write_bytes(b"") for p in files(folder)] and None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_the_older_one_named(checkpoints: Checkpoints, damage: str) -> None:
    for step in (10, 20):
        checkpoints.save(step, tree(step))
    checkpoints.close()
    DAMAGES[damage](checkpoints.folder / "20")
    later = Checkpoints(checkpoints.folder)
    with pytest.raises(LegatoError) as problem:
        later.load()
    place = checkpoints.folder / "20"
    assert str(problem.value) == f"the checkpoint '{place}' is damaged; resume from an older one with `from_step=10`"
    same(later.load(10)[1], tree(10))
    later.close()


def test_whichever_file_is_cut_it_is_never_read_as_another(checkpoints: Checkpoints) -> None:
    """Some files are copies or only say when they were written: without them all is still there."""
    checkpoints.save(10, tree(10))
    checkpoints.close()
    refused = 0
    for path in files(checkpoints.folder / "10"):
        whole = path.read_bytes()
        halve(path)
        later = Checkpoints(checkpoints.folder)
        try:
            same(later.load()[1], tree(10))
        except LegatoError as problem:
            assert "is damaged" in str(problem)
            refused += 1
        later.close()
        path.write_bytes(whole)
    assert refused >= 3  # the data, the manifest, the names


def aside(folder: Path) -> Path:
    """The file that holds a digest of the arrays."""
    (found,) = [path for path in files(folder / "empty") if b'"digest"' in path.read_bytes()]
    return found


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "arrays/more"])
def test_a_pipe_among_the_files_is_not_waited_for(checkpoints: Checkpoints, name: str) -> None:
    checkpoints.save(10, tree(10))
    checkpoints.close()
    path = checkpoints.folder / "10" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(LegatoError, match=f"'{path.name}' is no regular file"):
        Checkpoints(checkpoints.folder)


@pytest.mark.parametrize("what", ["arrays", "shapes", "step"])
def test_what_orbax_does_not_check_is_checked(checkpoints: Checkpoints, what: str) -> None:
    """Arrays of another checkpoint, shapes that were edited, a checkpoint under another step."""
    for step in (10, 20):
        checkpoints.save(step, tree(step))
    checkpoints.close()
    later, other = checkpoints.folder / "20", checkpoints.folder / "10"
    if what == "arrays":
        shutil.rmtree(later / "arrays")
        shutil.copytree(other / "arrays", later / "arrays")
    elif what == "shapes":
        aside(later).write_text(aside(later).read_text().replace("[0, 3]", "[0, 4]", 1))
    else:
        shutil.rmtree(later)
        shutil.copytree(other, later)
    again = Checkpoints(checkpoints.folder)
    with pytest.raises(LegatoError, match="is damaged; resume from an older one with `from_step=10`"):
        again.load()
    same(again.load(10)[1], tree(10))
    again.close()


def test_checkpoints_from_before_there_were_digests_are_read(checkpoints: Checkpoints) -> None:
    checkpoints.save(10, tree(10))
    checkpoints.close()
    path = aside(checkpoints.folder / "10")
    body = json.loads(path.read_text())
    del body["digest"]
    path.write_text(json.dumps(body))
    again = Checkpoints(checkpoints.folder)
    same(again.load()[1], tree(10))
    again.close()


def test_a_damaged_checkpoint_without_an_older_one(checkpoints: Checkpoints) -> None:
    checkpoints.save(10, tree(10))
    checkpoints.wait()
    halve(data(checkpoints.folder / "10"))
    with pytest.raises(LegatoError, match=r"'.*/10' is damaged; there is no older one"):
        checkpoints.load()


def test_a_run_goes_on_from_the_checkpoint_before_the_damaged_one(unbroken: Run, tmp_path: Path) -> None:
    """With the same end as if nothing had happened."""
    path = tmp_path / "damaged"
    shutil.copytree(unbroken.path, path)
    halve(data(path / "checkpoints" / "600"))
    with pytest.raises(LegatoError, match="resume from an older one with `from_step=400`"):
        online.resume(path, quiet=True)
    assert (path / "metrics.csv").read_bytes() == (unbroken.path / "metrics.csv").read_bytes()  # nothing was touched
    online.resume(path, 400, quiet=True)
    assert (path / "metrics.csv").read_bytes() == (unbroken.path / "metrics.csv").read_bytes()
    for which in ("last", "best"):
        weights = [run / "policy" / "seed-0" / which / "weights.safetensors" for run in (path, unbroken.path)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_checkpoint_of_another_network_is_refused(unbroken: Run, tmp_path: Path) -> None:
    path = tmp_path / "edited"
    shutil.copytree(unbroken.path, path)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"hidden": 16', '"hidden": 8'))
    words = r"'.*checkpoints': '.*' is float32\[.*16.*\], expected float32\[.*8.*\]"
    with pytest.raises(LegatoError, match=words), pytest.warns(LegatoWarning, match="its config changed"):
        online.resume(path, quiet=True)


def test_what_orbax_did_not_begin_to_read_is_not_warned_of() -> None:
    class SomeHandler:
        async def metadata(self) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint._hush.__wrapped__()
        waiting: Any = SomeHandler().metadata()
        waiting.__qualname__ = "SomeHandler.metadata"
        del waiting
        gc.collect()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        warnings.warn("coroutine 'users.own' was never awaited", RuntimeWarning, stacklevel=1)


def test_a_run_without_a_checkpoint_cannot_be_resumed(unbroken: Run, tmp_path: Path) -> None:
    path = tmp_path / "stopped"
    shutil.copytree(unbroken.path, path)
    shutil.rmtree(path / "checkpoints")
    with pytest.raises(LegatoError, match="holds no checkpoint"):
        online.resume(path, quiet=True)
    assert not (path / "checkpoints").exists()
