"""What a policy promises, whichever algorithm's it is (see `policy.Policy`)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.conformance.cases import ALL, FOREIGN, SMALL, case, seed_of
from tests.learners import episode_of
from tests.tiny import swings

from legato.algorithms.entry import Entry
from legato.data.spec import Spec
from legato.data.trajectories import About
from legato.errors import LegatoError
from legato.policy import Policy, Step
from legato.training import logged_data, online
from legato.training.settings import OfflineSettings, Settings

SPEC = Spec(3, (-2.0, -1.0), (2.0, 5.0))  # bounds that no tanh has by itself
CHOICES = Spec.discrete(3, 4)
STEPS, LENGTHS, DRAWS = 5, (6, 2), 20
LONG = LENGTHS[0]
KINDS = [(name, kind) for name in ALL for kind in ("numbers", *(["choices"] if ALL[name].discrete else []))]
pytestmark = FOREIGN
POLICIES = pytest.mark.parametrize(("name", "kind"), KINDS)


def config_of(found: Entry) -> Any:
    return replace(found.config(), **SMALL[found.name])


def spec_of(name: str, kind: str) -> Spec:
    """A fine-tuning has the environment of its run."""
    if ALL[name].learns == "finetuning":
        return case(name).run.spec
    return CHOICES if kind == "choices" else SPEC


@cache
def policies(name: str, kind: str) -> tuple[Policy[Any], Policy[Any]]:
    """What acts, and what explores: before anything was learnt, and of a fine-tuning after it."""
    found = ALL[name]
    if found.learns != "finetuning":
        policy = jax.jit(partial(found.load().new_policy, config_of(found), spec_of(name, kind)))(jax.random.key(1))
        return policy, policy
    here, noise = case(name), jnp.asarray(3.0, jnp.float32)
    explorers = here.loop.explorers(here.learner, jnp.asarray(here.loop.eval_target), noise)
    return here.policy, seed_of(explorers, 0)


def described(memory: Any) -> Any:
    """Structure, shapes and types."""
    return jax.tree.structure(memory), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(memory)]


@cache
def acted(name: str, kind: str) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """After some steps: greedy plans of `LENGTHS`; long ones that are drawn, `[draws, length, act]`. And what memory
    was like at the beginning, when a step was seen, and when it was decided.

    Observations lie far out, where a network gives large numbers.
    """
    steps = episode_of(0, spec_of(name, kind), STEPS)
    steps = replace(steps, observation=jnp.asarray(30 * np.asarray(steps.observation)))
    memories: dict[str, Any] = {}

    @jax.jit
    def actions(acts: Policy[Any], explores: Policy[Any], keys: jax.Array) -> Any:
        def seen(memory: Any, step: Step) -> tuple[Any, None]:
            after = acts.observe(memory, step)
            memories["seen"] = described(after)
            return after, None

        def drawn(key: jax.Array) -> jax.Array:
            plan, after = explores.decide(memory, key, LONG)
            memories["drawn"] = described(after)
            return plan

        begun = acts.init_state(())
        memories["begun"] = described(begun)
        memory, _ = jax.lax.scan(seen, begun, steps)
        plans = []
        for length in LENGTHS:
            plan, after = acts.decide(memory, None, length)
            memories[f"decided {length}"] = described(after)
            plans.append(plan)
        return *plans, jax.vmap(drawn)(keys)

    found = actions(*policies(name, kind), jax.random.split(jax.random.key(2), DRAWS))
    return tuple(map(np.asarray, found)), memories


@POLICIES
def test_a_greedy_policys_first_actions_do_not_depend_on_how_many_are_asked_for(name: str, kind: str) -> None:
    (whole, *shorter, _), _ = acted(name, kind)
    for found, length in zip((whole, *shorter), LENGTHS, strict=True):
        assert found.shape == (length, spec_of(name, kind).action_size)
        np.testing.assert_allclose(found, whole[:length], rtol=1e-5, atol=1e-6)


@POLICIES
def test_actions_lie_within_their_bounds_greedy_or_drawn(name: str, kind: str) -> None:
    spec = spec_of(name, kind)
    for found in acted(name, kind)[0]:
        assert np.isfinite(found).all()
        if kind == "choices":
            np.testing.assert_array_equal(found, np.rint(found))
        assert (found >= np.array(spec.low) - 1e-5).all() and (found <= np.array(spec.high) + 1e-5).all()


@POLICIES
def test_memory_keeps_its_structure_and_size_at_every_step(name: str, kind: str) -> None:
    """Shapes and types at the beginning, when a step was seen, and when it was decided: so at every step."""
    memories = acted(name, kind)[1]
    assert len(memories) == 3 + len(LENGTHS)
    for what, memory in memories.items():
        assert memory == memories["begun"], what


@pytest.mark.parametrize("name", [name for name, found in ALL.items() if found.learns != "finetuning"])
def test_a_new_policy_is_that_of_a_new_learner(name: str) -> None:
    """In structure, shapes and types: what is saved is read into it."""
    found = ALL[name]
    module, config, key = found.load(), config_of(found), jax.random.key(0)
    new = jax.eval_shape(partial(module.new_policy, config, SPEC), key)
    of_learner = jax.eval_shape(lambda key: module.policy(config, module.init(config, SPEC, key)), key)
    assert jax.tree.structure(new) == jax.tree.structure(of_learner)
    for one, other in zip(jax.tree.leaves(new), jax.tree.leaves(of_learner), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize(
    "name", [name for name, found in ALL.items() if not found.continues or ALL[found.continues[0]].discrete]
)
def test_choices_are_taken_where_they_are_declared_and_refused_elsewhere(name: str) -> None:
    found = ALL[name]

    def check() -> Spec:
        if found.learns == "online":
            return online.check(name, config_of(found), Settings(env="CartPole-v1"))
        if found.learns == "offline":
            data = swings(actions=(np.arange(102) % 4)[:, None], about=About("swings", choices=4))
            return logged_data.check(name, config_of(found), OfflineSettings(), data)[0]
        return found.load().check(config_of(found), config_of(ALL[found.continues[0]]), CHOICES, None)

    if found.discrete:
        assert check().choices in (2, 4)
    else:
        with pytest.raises(LegatoError, match=r"discrete actions|choices"):
            check()
