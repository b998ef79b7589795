"""A finished policy as a folder: `policy.json` says what it is, `weights.safetensors` holds its numbers.

Nothing is unpickled: a file from a stranger can hold bad numbers, not code. Every number is checked on the way in. The
card holds digests of its parts and of the weights, by which damage and edits are seen; a policy that was saved before
there were digests is read without.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as read_weights
from safetensors.numpy import save as weights_of

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entry
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.player import Player
from legato.policy import Policy
from legato.training import files
from legato.training.initialise import init_learners
from legato.training.renamed import present_leaves
from legato.training.run import Run

FORMAT = 1
_CARD, _WEIGHTS = "policy.json", "weights.safetensors"
_LARGEST = 64 << 30  # bytes of weights
_EXTRA = {"environment": str | None, "dataset": str | None, "seed": int | None, "step": int | None}
_EXTRA |= {"run": str | None, "which": str | None}


@dataclasses.dataclass(frozen=True)
class Card:
    """What a saved policy says of itself. `extra` holds where it came from: environment, seed, step, which."""

    algorithm: str
    config: Any
    spec: Spec
    extra: dict[str, Any]


class LoadedPolicy(Player):
    """A saved policy, ready to act (`begin`, `act`), with its card."""

    def __init__(self, policy: Policy[Any], card: Card):
        super().__init__(policy, card.spec)
        self.card = card


def save(folder: Path, policy: Policy[Any], card: Card) -> None:
    """Write the policy; a folder of that name is replaced as a whole, so that no reader meets a half.

    Raises `LegatoError` where the disk takes no more.
    """
    temporary = folder.with_name(folder.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    body = {"format": FORMAT, "algorithm": card.algorithm, "config": dataclasses.asdict(card.config)}
    body |= {"spec": dataclasses.asdict(card.spec), **card.extra}
    weights = weights_of(named_leaves(policy))
    body = files.add_digests(body, weights=files.digest_of(weights))
    try:
        temporary.mkdir(parents=True)
        (temporary / _CARD).write_text(json.dumps(body, indent=2) + "\n")
        (temporary / _WEIGHTS).write_bytes(weights)
    except OSError as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        cause = problem.strerror or problem
        before = "; the one before is kept" if folder.exists() else ""
        raise LegatoError(f"a policy could not be written to '{folder}': {cause}{before}") from problem
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)


def keep(run: Run, policies: Policy[Any], better: NDArray[np.bool_], step: int, origin: dict[str, Any]) -> None:
    """Save policies, stacked over a run's seeds, each as the seed's `last` and, where it is better, as its `best`.

    `origin` says where they come from, beside seed, step and run.
    """
    for i, seed in enumerate(run.seeds):
        policy = select_seeds(policies, i)
        for which in ("last", "best") if better[i] else ("last",):
            extra = {**origin, "seed": seed, "step": step, "run": run.path.name, "which": which}
            save(run.path / "policy" / f"seed-{seed}" / which, policy, Card(run.algorithm, run.config, run.spec, extra))


def load(folder: Path) -> LoadedPolicy:
    """Read a policy.

    Raises `LegatoError` for a missing, cut, changed or foreign file, other names or shapes, and NaN.
    """
    card, changed, digest = _read(folder)
    path = folder / _WEIGHTS
    try:
        raw = files.read_bytes(path, _LARGEST)
        weights = read_weights(raw)
    except FileNotFoundError:
        raise LegatoError(f"'{folder}' has no {_WEIGHTS}") from None
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError) as problem:
        # The last two: a type of number that NumPy lacks.
        raise LegatoError(f"'{path}' cannot be read ({problem}); it may have been cut short") from problem
    _plausible(card.config, weights, folder / _CARD)
    module = algorithm_module(card.algorithm)
    try:
        key = jax.eval_shape(jax.random.key, 0)  # only its shape: nothing is computed and nothing compiled
        skeleton = eqx.filter_eval_shape(lambda key: module.new_policy(card.config, card.spec, key), key)
    except Exception as problem:  # an edited card fails in as many ways as it can be edited
        raise LegatoError(f"'{folder / _CARD}' describes no policy: its config or spec was changed") from problem
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise LegatoError(f"'{path}': '{name}' holds numbers that are not finite; its training had diverged")
    filled = fill(skeleton, weights, str(path))
    advice = "the policy is not what was saved: copy it anew from its run"
    if digest is not None and files.digest_of(raw) != digest:
        raise LegatoError(f"'{path}' was changed or damaged, its digest is another one: {advice}")
    if changed:
        raise LegatoError(f"'{folder / _CARD}': its {' and '.join(changed)} changed since it was written: {advice}")
    return LoadedPolicy(filled, card)


def _plausible(config: Any, weights: dict[str, np.ndarray], source: Path) -> None:
    """Refuse sizes that the weights cannot have, before a network of them is so much as described."""
    widest = max((max(array.shape, default=1) for array in weights.values()), default=1)
    limits = {"layers": len(weights)}  # each has one array at least
    limits |= dict.fromkeys(("hidden", "size", "channels", "order", "embedding", "bins", "heads"), 4 * widest)
    for name, most in limits.items():
        if (value := getattr(config, name, 0)) > most:
            raise LegatoError(f"'{source}' says {name} {value}, which its weights do not have: copy the policy anew")


def newest_learners(run: Run, seeds: Sequence[int], *shared: Any) -> Any:
    """All that these seeds had learnt at a run's newest checkpoint, stacked. `shared` are what `init` takes besides.

    Raises `LegatoError` where there is no checkpoint, and for one of another run.
    """
    from legato.training.checkpoint import Checkpoints  # brings Orbax, which acting does not need

    checkpoints = Checkpoints(run.path / "checkpoints", create=False)
    try:
        _, state = checkpoints.load(None)
    finally:
        checkpoints.close()
    keys = jax.random.split(jax.random.key(0), len(run.seeds))
    skeleton = init_learners.eval_shape(algorithm_module(run.algorithm), (run.config, run.spec), (keys,), shared)
    learners = fill(skeleton, state["learner"], str(run.path / "checkpoints"))
    return select_seeds(learners, [run.seeds.index(seed) for seed in seeds])


def newest_learner(run: Run, seed: int) -> Any:
    """The same of one seed."""
    return select_seeds(newest_learners(run, [seed]), 0)


def select_seeds(stacked: Any, places: int | list[int]) -> Any:
    """What is stacked over seeds, of those at these places; by way of the host, where nothing has to be compiled."""

    def select(leaf: Any) -> Any:
        return jax.device_put(np.asarray(leaf)[places], may_alias=False) if eqx.is_array(leaf) else leaf

    return jax.tree.map(select, stacked)


def read_card(folder: Path) -> Card:
    """What the policy in `folder` says of itself."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[Card, list[str], str | None]:
    """The card, which of its parts were changed, and the digest of its weights, if it has one."""
    path = folder / _CARD
    try:
        body, digests = files.split_digests(files.read_object(path))
        changed = files.changed_parts(body, digests, apart=("weights",))
        if body.pop("format") != FORMAT:
            raise LegatoError(f"'{path}' was written by another version of legato; this one reads format {FORMAT}")
        name, config, spec = body.pop("algorithm"), body.pop("config"), body.pop("spec")
        files.check_type(str, name, "algorithm")
        extra = files.object_of(_EXTRA, body)
        config = files.instance(entry(name).config, config, "config")
        return Card(name, config, files.spec(spec), extra), changed, digests.get("weights")
    except (FileNotFoundError, NotADirectoryError):
        raise LegatoError(f"'{folder}' is not a saved policy: it has no {_CARD}") from None
    except KeyError as problem:
        lacks = f"it lacks {problem}"
        raise LegatoError(f"'{path}' is not a policy card that legato wrote ({lacks}); copy it anew") from problem
    except (files.Unfit, TypeError) as problem:
        raise LegatoError(f"'{path}' is not a policy card that legato wrote ({problem}); copy it anew") from problem


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by the path that leads to each, such as `actor.cell.h.weight`."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))[0]
    return {_name(path): np.array(leaf, copy=True) for path, leaf in leaves}


def fill(skeleton: Any, arrays: dict[str, np.ndarray], source: str) -> Any:
    """`skeleton` (arrays or their shapes) with its leaves replaced by the named `arrays`.

    Raises `LegatoError`, naming `source`, when a name is missing or foreign, or a shape or dtype differs.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton)
    arrays = present_leaves(arrays, {_name(path) for path, _ in leaves})
    match(skeleton, arrays, source)
    filled = [jax.device_put(arrays[_name(path)], may_alias=False) for path, _ in leaves]  # compiles nothing
    return jax.tree_util.tree_unflatten(structure, filled)


def match(skeleton: Any, arrays: dict[str, np.ndarray], source: str) -> None:
    """Raises `LegatoError` as `fill` does; nothing is put on a device."""
    expected = {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(skeleton)[0]}
    arrays = present_leaves(arrays, expected)
    if missing := sorted(expected.keys() - arrays.keys()):
        raise LegatoError(f"'{source}' lacks '{missing[0]}'" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    if foreign := sorted(arrays.keys() - expected.keys()):
        raise LegatoError(f"'{source}' holds '{foreign[0]}', which this policy has no place for")
    for name, leaf in expected.items():
        array = arrays[name]
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise LegatoError(
                f"'{source}': '{name}' is {array.dtype}{list(array.shape)}, expected {leaf.dtype}{list(leaf.shape)}"
            )


def _name(path: tuple[Any, ...]) -> str:
    """`actor.l1.weight`, `optimisers.actor.0.mu.l1.weight`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
