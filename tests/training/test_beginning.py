"""How training begins: with what each seed would know alone, and with one trace of an update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import same
from tests.tiny import LOGGED, learn, logs, train

from legato import api
from legato.algorithms.decision_s4 import actor_critic as decision_s4_finetuning
from legato.algorithms.decision_transformer import decision_transformer
from legato.algorithms.sac import sac
from legato.data.spec import Spec
from legato.training import finetune, offline, online
from legato.training.beginning import begin

SPEC = Spec(3, (-2.0,), (2.0,))
CONFIG = sac.Config(hidden=8)


def test_every_seed_begins_as_it_would_alone() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    found = begin(sac, (CONFIG, SPEC), (keys,))
    for i, key in enumerate(keys):
        assert same(jax.tree.map(lambda leaf, i=i: leaf[i], found), jax.jit(partial(sac.init, CONFIG, SPEC))(key))


def test_own_is_told_from_shared_and_equal_configurations_share_a_program() -> None:
    traced = []

    def init(config: sac.Config, own: Any, shared: Any) -> Any:
        traced.append(config.hidden)
        return own * config.hidden + shared.sum()

    module = ModuleType("module")
    module.init = init  # type: ignore[attr-defined]
    for hidden in (2, 2, 3):
        found = begin(module, (sac.Config(hidden=hidden),), (jnp.arange(3.0),), (jnp.ones(3),))
        np.testing.assert_array_equal(found, hidden * np.arange(3) + 3)
    assert traced == [2, 3]


def tuned(folder: Path) -> Any:
    """A fine-tuning of a policy from logs: critics alone, then the actor too."""
    run = learn("ds4", folder / "ds4", logs(folder / "logs.npz"), updates=10)
    sizes = {"hidden": 7, "layers": 1, "batch_size": 8, "start_steps": 200, "critic_steps": 200, "steps": 600}
    return api.finetune(run, "Pendulum-v1", out=folder / "run", quiet=True, eval_episodes=1, **sizes)


# Sizes that no other test has: what was traced once in a process is not traced again.
LEARNT: dict[str, tuple[type, ModuleType, Callable[[Path], Any]]] = {
    "online": (online.OnlineLoop, sac, lambda folder: train("sac", folder / "run", hidden=7, steps=60)),
    "offline": (
        offline.OfflineLoop,
        decision_transformer,
        lambda folder: learn("dt", folder / "run", logs(folder / "logs.npz"), **{**LOGGED["dt"], "size": 12}),
    ),
    "finetune": (finetune.FinetuningLoop, decision_s4_finetuning, tuned),
}


@pytest.mark.parametrize("kind", LEARNT)
def test_the_first_turn_finds_its_update_traced(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of critics alone is traced when it comes to it, and reports no more."""
    loop, module, run = LEARNT[kind]
    update, turn, traced, turns = module.update, loop.turn, [], []  # type: ignore[attr-defined]

    def tracing(*args: Any) -> Any:
        if kind != "finetune" or args[-1]:
            traced.append(len(turns))
        return update(*args)

    def turning(self: Any) -> None:
        turns.append(self)
        turn(self)

    monkeypatch.setattr(module, "update", tracing)
    monkeypatch.setattr(loop, "turn", turning)
    run(tmp_path)
    assert len(turns) > 1
    assert traced
    assert set(traced) == {0}
