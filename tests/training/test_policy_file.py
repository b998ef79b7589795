"""Saved policies: the same numbers in and out, and a line that says what is wrong with any other file."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.bombs import calls
from tests.tiny import new_policy

from legato import api
from legato.algorithms import algorithm, entries
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl.config import SRL
from legato.algorithms.td3.config import TD3
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.player import Player
from legato.training import files
from legato.training.policy_file import Card, fill, load, named_leaves, save

SPEC = Spec(3, (-2.0, 0.1), (2.0, 1 / 3))
CONFIGS: dict[str, SAC | SRL | TD3] = {
    "sac": SAC(hidden=8, action_repeat=3),
    "td3": TD3(hidden=8, noise=0.3),
    "srl": SRL(horizon=5, hidden=8, model_hidden=(4, 6)),
    "srl-rnn": SRL(horizon=2, hidden=8, model_hidden=(4, 6), cell="rnn", gamma=0.1 + 0.2),
}
ORIGIN = {"environment": "Some-v1", "seed": 7, "step": 1200, "run": "r", "which": "best"}


@cache
def build(name: str, seed: int = 0) -> tuple[Any, Card]:
    algorithm_name, config = name.split("-")[0], CONFIGS[name]
    policy = new_policy(algorithm(algorithm_name), config, SPEC, jax.random.key(seed))
    return policy, Card(algorithm_name, config, SPEC, ORIGIN)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "saved"
    save(folder, *build("srl"))
    return folder


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A saved policy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "saved"))


def refusal(folder: Path) -> str:
    with pytest.raises(LegatoError) as problem:
        load(folder)
    return str(problem.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_goes_in_comes_out(tmp_path: Path, name: str) -> None:
    policy, card = build(name)
    save(tmp_path / "saved", policy, card)
    found = load(tmp_path / "saved")
    assert found.card == card
    assert found.spec == SPEC
    assert jax.tree.structure(found.policy) == jax.tree.structure(policy)
    for a, b in zip(jax.tree.leaves(found.policy), jax.tree.leaves(policy), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    one, other = Player(policy, SPEC), api.load(tmp_path / "saved")
    observation = np.arange(3.0)
    np.testing.assert_array_equal(other.act(other.begin(), observation, 6)[0], one.act(one.begin(), observation, 6)[0])


def test_only_what_acts_is_saved(saved: Path) -> None:
    names = set(load_file(saved / "weights.safetensors"))
    assert names == {
        *(f"actor.{layer}.{part}" for layer in ("l1", "l2", "mean", "log_std") for part in ("weight", "bias")),
        *(f"actor.cell.{layer}.{part}" for layer in ("x", "h") for part in ("weight", "bias")),
    }
    assert sorted(p.name for p in saved.iterdir()) == ["policy.json", "weights.safetensors"]


def test_a_policy_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    save(folder, *build("srl", 0))
    (tmp_path / "saved.writing").mkdir()  # what a kill left behind
    (tmp_path / "saved.old").mkdir()
    policy, card = build("sac", 1)
    save(folder, policy, card)
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
    assert load(folder).card.algorithm == "sac"


@pytest.mark.parametrize(("room", "part"), [(20, "card"), (2000, "weights")])
def test_a_disk_that_takes_no_more_is_said_in_one_line_and_nothing_is_lost(saved: Path, room: int, part: str) -> None:
    """Files may not grow beyond a limit here, which the system refuses as it refuses a full disk."""
    other = build("srl", 1)  # before: what is compiled is kept in files as well
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(LegatoError) as refused:
            save(saved, *other)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    words = f"a policy could not be written to '{saved}': File too large; the one before is kept"
    assert str(refused.value) == words, part
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    load(saved)


@pytest.mark.parametrize("content", ["nothing", "file", "empty folder"])
def test_what_is_no_policy_is_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "saved"
    if content == "file":
        folder.write_text("x")
    elif content == "empty folder":
        folder.mkdir()
    assert refusal(folder) == f"'{folder}' is not a saved policy: it has no policy.json"
    with pytest.raises(LegatoError, match="is not a saved policy"):
        api.load(folder)


# --- weights ---


def test_missing_weights(saved: Path) -> None:
    (saved / "weights.safetensors").unlink()
    assert refusal(saved) == f"'{saved}' has no weights.safetensors"


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_cut_weights(saved: Path, keep: float) -> None:
    path = saved / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    message = refusal(saved)
    assert message.startswith(f"'{path}' cannot be read (")
    assert message.endswith("it may have been cut short")
    assert "\n" not in message


class Bomb:
    """Goes off when unpickled."""

    exploded = False

    def __reduce__(self) -> tuple[Callable[..., None], tuple[type, str, bool]]:
        return setattr, (Bomb, "exploded", True)


def test_nothing_is_unpickled(saved: Path) -> None:
    bomb = pickle.dumps(Bomb())
    assert calls(bomb)
    with (saved / "weights.safetensors").open("wb") as file:
        np.save(file, np.array([Bomb()]))
    for content in (bomb, (saved / "weights.safetensors").read_bytes()):
        (saved / "weights.safetensors").write_bytes(content)
        assert "cannot be read" in refusal(saved)
    (saved / "policy.json").write_bytes(bomb)
    assert "is not a policy card" in refusal(saved)
    assert not Bomb.exploded


def spoil(saved: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> str:
    path = saved / "weights.safetensors"
    weights = {name: np.array(array) for name, array in load_file(path).items()}
    change(weights)
    save_file(weights, path)
    message = refusal(saved)
    assert message.startswith(f"'{path}'")
    return message


def test_foreign_missing_and_misshapen_weights_are_named(saved: Path) -> None:
    file = f"'{saved / 'weights.safetensors'}'"
    assert spoil(saved, lambda w: w.update({"critic.q1": np.zeros(2, np.float32)})) == (
        f"{file} holds 'critic.q1', which this policy has no place for"
    )
    del_one = spoil(saved, lambda w: [w.pop("critic.q1"), w.pop("actor.l1.bias")])
    assert del_one == f"{file} lacks 'actor.l1.bias'"
    assert spoil(saved, lambda w: w.pop("actor.l1.weight")) == f"{file} lacks 'actor.l1.bias' and 1 more"


@pytest.mark.parametrize(
    ("array", "is_"),
    [
        (np.zeros(9, np.float32), "float32[9]"),
        (np.zeros((8, 1), np.float32), "float32[8, 1]"),
        (np.zeros((), np.float32), "float32[]"),
        (np.zeros(8, np.float64), "float64[8]"),
        (np.zeros(8, np.float16), "float16[8]"),
        (np.zeros(8, np.int32), "int32[8]"),
        (np.zeros(8, bool), "bool[8]"),
    ],
)
def test_another_shape_or_type_is_refused(saved: Path, array: np.ndarray, is_: str) -> None:
    message = spoil(saved, lambda w: w.update({"actor.l1.bias": array}))
    assert message.endswith(f": 'actor.l1.bias' is {is_}, expected float32[8]")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "U64", "NONSENSE"])
def test_a_type_that_numpy_lacks_is_refused(saved: Path, dtype: str) -> None:
    """Written by hand: an 8-byte length, a JSON header, the numbers."""
    sizes = {"BF16": 2, "F8_E4M3": 1, "U64": 8, "NONSENSE": 4}
    header = json.dumps({"actor.l1.bias": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8 * sizes[dtype]]}})
    content = struct.pack("<Q", len(header)) + header.encode() + bytes(8 * sizes[dtype])
    (saved / "weights.safetensors").write_bytes(content)
    message = refusal(saved)
    assert message.startswith(f"'{saved / 'weights.safetensors'}'")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(saved: Path, number: float) -> None:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights["actor.cell.h.weight"][3, 4] = number

    assert spoil(saved, change).endswith(
        ": 'actor.cell.h.weight' holds numbers that are not finite; its training had diverged"
    )


@pytest.mark.parametrize("change", ["one bit", "zeros", "another policy's"])
def test_weights_that_changed_on_disk_are_refused(saved: Path, change: str) -> None:
    path = saved / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    if change == "one bit":
        raw[-9] ^= 1
    elif change == "zeros":
        raw[-64:] = bytes(64)
    else:
        save(saved.with_name("other"), *build("srl", 1))
        raw = bytearray(saved.with_name("other").joinpath(path.name).read_bytes())
    path.write_bytes(raw)
    assert refusal(saved).startswith(f"'{path}' was changed or damaged, its digest is another one: ")


@pytest.mark.parametrize("change", [{"config.gamma": 0.95}, {"spec.high": [2.5, 1.0]}, {"environment": "Other-v1"}])
def test_a_card_that_was_edited_is_refused(saved: Path, change: dict[str, Any]) -> None:
    """Where nothing else shows it: the weights fit."""
    (part,) = {name.partition(".")[0] for name in change}
    assert f"policy.json': its {part} changed since it was written" in edit(saved, change)


def test_policies_from_before_there_were_digests_are_read(saved: Path) -> None:
    body = json.loads((saved / "policy.json").read_text())
    del body["digests"]
    (saved / "policy.json").write_text(json.dumps(body))
    assert load(saved).card.extra == ORIGIN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.hidden": 10**9}, "hidden must be at most 1000000; 1000000000 was given"),
        ({"config.hidden": 10**6}, "says hidden 1000000, which its weights do not have"),
        ({"config.horizon": 10**9}, "horizon must be at most 100000; 1000000000 was given"),
        ({"config.model_hidden": [4, 10**9]}, "model_hidden must be at most 1000000"),
    ],
)
def test_absurd_sizes_are_refused_before_a_network_of_them_is_described(
    saved: Path, change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a stranger, who can write digests too."""
    monkeypatch.setattr(eqx, "filter_eval_shape", lambda *args: pytest.fail("it was described"))
    monkeypatch.setattr(files, "changed_parts", lambda *args, **options: [])
    assert words in edit(saved, change)


@pytest.mark.parametrize("name", ["policy.json", "weights.safetensors"])
def test_only_regular_files_are_opened(saved: Path, name: str) -> None:
    """A pipe would be waited for until somebody writes into it."""
    (saved / name).unlink()
    os.mkfifo(saved / name)
    assert f"{name}' is no regular file" in refusal(saved)


# --- the card ---


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"x"', b"null", b"\xff\x00", b'{"format": 1}'])
def test_what_is_no_card_is_refused(saved: Path, content: bytes) -> None:
    (saved / "policy.json").write_bytes(content)
    message = refusal(saved)
    assert message.startswith(f"'{saved / 'policy.json'}' is not a policy card that legato wrote (")
    assert "\n" not in message


def edit(saved: Path, changes: dict[str, Any]) -> str:
    body = json.loads((saved / "policy.json").read_text())
    for place, value in changes.items():
        *parents, name = place.split(".")
        node = body
        for parent in parents:
            node = node[parent]
        node[name] = value
    (saved / "policy.json").write_text(json.dumps(body))
    return refusal(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algorithm": "slr"}, "unknown algorithm 'slr'; did you mean 'srl'?"),
        ({"algorithm": "ppo"}, f"unknown algorithm 'ppo'; known: {', '.join(sorted(entries()))}"),
        ({"algorithm": 3}, "is not a policy card that legato wrote"),
        ({"algorithm": ["srl"]}, "is not a policy card that legato wrote"),
        ({"algorithm": True}, "is not a policy card that legato wrote (algorithm must be text; True was given)"),
        ({"algorithm": "sac"}, "is not a policy card that legato wrote"),  # whose config has other fields
        ({"format": 2}, "was written by another version of legato; this one reads format 1"),
        ({"config": []}, "is not a policy card that legato wrote"),
        ({"config.junk": 1}, "is not a policy card that legato wrote"),
        ({"config.hidden": "wide"}, "is not a policy card that legato wrote"),
        ({"config.hidden": 0}, "hidden must be at least 1; 0 was given"),
        ({"config.hidden": 9}, "expected float32["),  # the weights are not of this width
        ({"config.hidden": 8.5}, "policy.json' "),
        ({"config.hidden": 10**30}, "is not a policy card that legato wrote (it holds a whole number of 31 digits)"),
        ({"config.cell": "lstm"}, "policy.json' "),
        ({"config.model_hidden": 5}, "policy.json' "),
        ({"config.model_hidden": ["a", "b"]}, "policy.json' "),
        ({"spec": None}, "is not a policy card that legato wrote"),
        ({"spec.junk": 1}, "is not a policy card that legato wrote"),
        ({"spec.observation_size": -1}, "is not a policy card that legato wrote"),
        ({"spec.observation_size": "x"}, "is not a policy card that legato wrote"),
        ({"spec.observation_size": 4}, ", expected float32["),
        ({"spec.shape": [2, 2]}, "its spec needs a shape of as many numbers as an observation has"),
        ({"spec.shape": [-1, -3]}, "its spec needs a shape of as many numbers as an observation has"),
        ({"spec.shape": []}, "its spec needs a shape of as many numbers as an observation has"),
        ({"spec.low": [0.0]}, "is not a policy card that legato wrote"),
        ({"spec.low": ["a", "b"]}, "is not a policy card that legato wrote"),
        ({"spec.low": [float("nan"), 0.0]}, "is not a policy card that legato wrote"),
        ({"spec.high": [1.0, float("inf")]}, "is not a policy card that legato wrote"),
        ({"spec.high": [1.0, 1.0, 1.0]}, "is not a policy card that legato wrote"),
    ],
)
def test_an_edited_card_is_refused(saved: Path, changes: dict[str, Any], words: str) -> None:
    assert words in edit(saved, changes)


def test_more_about_a_policys_origin_is_kept(saved: Path) -> None:
    body = json.loads((saved / "policy.json").read_text())
    (saved / "policy.json").write_text(json.dumps({**body, "note": ["mine", {"a": 1}]}))
    assert load(saved).card.extra == {**ORIGIN, "note": ["mine", {"a": 1}]}


# --- named leaves ---


def test_leaves_are_named_by_their_path_and_filled_by_it() -> None:
    tree = {"b": [jnp.ones(2), jnp.zeros((1, 1), jnp.int32)], "a": eqx.nn.Linear(2, 1, key=jax.random.key(0))}
    leaves = named_leaves(tree)
    assert set(leaves) == {"b.0", "b.1", "a.weight", "a.bias"}
    shuffled = {name: leaves[name] + 1 for name in ("a.bias", "b.1", "a.weight", "b.0")}
    found = fill(tree, shuffled, "here")
    np.testing.assert_array_equal(found["a"].bias, tree["a"].bias + 1)
    np.testing.assert_array_equal(found["b"][1], [[1]])
    leaves["b.0"][:] = 7  # a copy
    np.testing.assert_array_equal(tree["b"][0], [1, 1])
