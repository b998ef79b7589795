"""A finished policy as a folder: `policy.json` says what it is, `weights.safetensors` holds its numbers.

Nothing is unpickled: a file from a stranger can hold bad numbers, not code. Every number is checked on the way in.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms.configs import CONFIGS, Config, read_config
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.policy import Player, Policy
from legato.training.run import Run

FORMAT = 1
_CARD, _WEIGHTS = "policy.json", "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a saved policy says of itself. `extra` holds where it came from: environment, seed, step, which."""

    algorithm: str
    config: Config
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
    try:
        temporary.mkdir(parents=True)
        (temporary / _CARD).write_text(json.dumps(body, indent=2) + "\n")
        save_file(named_leaves(policy), temporary / _WEIGHTS)
    except (OSError, SafetensorError) as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        number = re.search(r"os error (\d+)", str(problem))  # safetensors' own words for the system's refusal
        cause = os.strerror(int(number[1])) if number else getattr(problem, "strerror", None) or problem
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
        policy = jax.tree.map(lambda leaf, i=i: leaf[i], policies)
        for which in ("last", "best") if better[i] else ("last",):
            extra = {**origin, "seed": seed, "step": step, "run": run.path.name, "which": which}
            save(run.path / "policy" / f"seed-{seed}" / which, policy, Card(run.algorithm, run.config, run.spec, extra))


def load(folder: Path) -> LoadedPolicy:
    """Read a policy. Raises `LegatoError` for a missing, cut or foreign file, other names or shapes, and NaN."""
    card = read_card(folder)
    path = folder / _WEIGHTS
    module = algorithm_module(card.algorithm)
    try:
        skeleton = eqx.filter_eval_shape(
            lambda key: module.policy(card.config, module.init(card.config, card.spec, key)), jax.random.key(0)
        )
    except Exception as problem:  # an edited card fails in as many ways as it can be edited
        raise LegatoError(f"'{folder / _CARD}' describes no policy: its config or spec was changed") from problem
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise LegatoError(f"'{folder}' has no {_WEIGHTS}") from None
    except (SafetensorError, OSError, AttributeError) as problem:  # the last: a type of number that NumPy lacks
        raise LegatoError(f"'{path}' cannot be read ({problem}); it may have been cut short") from problem
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise LegatoError(f"'{path}': '{name}' holds numbers that are not finite; its training had diverged")
    return LoadedPolicy(fill(skeleton, weights, str(path)), card)


def read_card(folder: Path) -> Card:
    """What the policy in `folder` says of itself."""
    path = folder / _CARD
    try:
        body = json.loads(path.read_text())
        if body.pop("format") != FORMAT:
            raise LegatoError(f"'{path}' was written by another version of legato; this one reads format {FORMAT}")
        name, config, spec = body.pop("algorithm"), body.pop("config"), body.pop("spec")
        config = read_config(CONFIGS[name], config) if name in CONFIGS else algorithm_module(name)
        return Card(name, config, _spec(spec), body)  # type: ignore[arg-type]
    except (FileNotFoundError, NotADirectoryError):
        raise LegatoError(f"'{folder}' is not a saved policy: it has no {_CARD}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise LegatoError(f"'{path}' is not a policy card that legato wrote ({problem})") from problem


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by the path that leads to each, such as `actor.cell.h.weight`."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))[0]
    return {_name(path): np.array(leaf, copy=True) for path, leaf in leaves}


def fill(skeleton: Any, arrays: dict[str, np.ndarray], source: str) -> Any:
    """`skeleton` (arrays or their shapes) with its leaves replaced by the named `arrays`.

    Raises `LegatoError`, naming `source`, when a name is missing or foreign, or a shape or dtype differs.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton)
    expected = {_name(path): leaf for path, leaf in leaves}
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
    return jax.tree_util.tree_unflatten(structure, [jnp.array(arrays[_name(path)]) for path, _ in leaves])


def _name(path: tuple[Any, ...]) -> str:
    """`actor.l1.weight`, `optimisers.actor.0.mu.l1.weight`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _spec(fields: dict[str, Any]) -> Spec:
    spec = Spec(**_tuples(fields))
    low, high = np.array(spec.low, float), np.array(spec.high, float)
    finite = np.isfinite(low).all() and np.isfinite(high).all()
    if not (spec.observation_size > 0 and low.shape == high.shape == (spec.action_size,) and finite):
        raise ValueError("its spec needs an observation size and as many finite lower as upper bounds")
    if spec.choices is not None and spec != Spec.discrete(spec.observation_size, spec.choices):
        raise ValueError(f"its bounds are not those of {spec.choices} discrete actions")
    return spec


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists are the dataclasses' tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
