"""What is learnt does not depend on the unit, nor on the zero, in which an environment counts its actions."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from tests.learners import acted, close, episode_of, noise, transitions
from tests.tiny import LOGGED, learn, logs, swings

from legato import api
from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entry
from legato.algorithms.action_units import warn_of_units
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.sac import sac
from legato.algorithms.srl import srl
from legato.algorithms.srl.planner import SRLModel
from legato.algorithms.td3 import td3
from legato.algorithms.temporl import temporl
from legato.data import dataset_statistics, windows
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.replay import Sequences, scale_actions
from legato.data.spec import Spec, convert_actions
from legato.data.tokens import Discretiser
from legato.data.trajectories import About, trajectories
from legato.envs import make_vec
from legato.errors import LegatoError
from legato.planning.shooting import Shooting
from legato.player import Player
from legato.policy import LastStep, Step
from legato.rollout import Clock, Rollout, stack
from legato.training import files
from legato.training.settings import override, preset

OFF = Spec(3, (-0.2, 3.0), (0.8, 3.5))  # no number of it centred, both narrower than [-1, 1]
UNIT = OFF.with_unit_bounds()
SIZES: dict[str, Any] = {"hidden": 8, "batch_size": 16}
PLANNED = {**SIZES, "horizon": 3, "model_hidden": (8, 6)}
CONFIG = {
    "sac": sac.Config(**SIZES),
    "td3": td3.Config(**SIZES),
    "temporl": temporl.Config(**SIZES, max_skip=3),
    "srl": srl.Config(**PLANNED, model_target="difference", predict_terminations=True),
}


def batch_of(module: Any, config: Any, seed: int) -> tuple[Any, ...]:
    def of(i: int, length: int) -> Any:
        steps = [transitions(seed + 10 * i + k, OFF, 16) for k in range(length)]
        if length == 1:
            return steps[0]
        return Sequences(jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *steps), jnp.ones((length, 16)))

    return tuple(of(i, length) for i, length in enumerate(module.batches(config).lengths))


@cache
def made(config: Any, spec: Spec) -> Any:
    """A learner before its first update."""
    name = next(name for name, kind in CONFIG.items() if type(kind) is type(config))
    return jax.jit(algorithm_module(name).init, static_argnums=(0, 1))(config, spec, jax.random.key(0))


@jax.jit
def scaled_of(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(scale_actions(each, OFF) for each in batch)


@pytest.mark.parametrize("name", CONFIG)
def test_an_update_is_the_published_one_of_scaled_actions(name: str) -> None:
    module, config = algorithm_module(name), CONFIG[name]
    published = replace(config, action_units="environment")
    update = jax.jit(module.update, static_argnums=0)
    ours, theirs = made(config, OFF), made(published, UNIT)
    for i in range(2):
        batch = batch_of(module, config, i)
        ours, said = update(config, ours, batch, jax.random.key(i))
        scaled = scaled_of(batch)
        theirs, heard = update(published, theirs, scaled, jax.random.key(i))
        close(said, heard, 1e-5)
    close(jax.tree.leaves(ours), jax.tree.leaves(theirs), 1e-5)


def test_as_published_the_units_matter() -> None:
    published = replace(CONFIG["td3"], action_units="environment")
    learner, batch = made(published, OFF), batch_of(td3, published, 0)[0]
    loss = jax.jit(td3.critic_loss, static_argnums=2)
    losses = [
        loss(learner.critic, learner, published, each, noise(0, 16, 2))[0] for each in (batch, *scaled_of((batch,)))
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


normalised, denormalised = jax.jit(OFF.normalise), jax.jit(OFF.denormalise)


@pytest.mark.parametrize("key", [None, 3])
@pytest.mark.parametrize("name", ["sac", "td3", "temporl", "srl"])
def test_a_policy_reads_and_writes_the_environments_units(name: str, key: int | None) -> None:
    module, config = algorithm_module(name), CONFIG[name]

    @jax.jit
    def decide(policy: Any, executed: Any) -> Any:
        step = Step(noise(0, 3).astype(jnp.float32), jnp.zeros(()), executed, jnp.asarray(False))
        state = policy.observe(policy.init_state(()), step)
        return policy.decide(state, None if key is None else jax.random.key(key), 3)[0]

    ours, theirs = (module.policy(config, made(config, spec)) for spec in (OFF, UNIT))
    before = np.float32([0.3, 3.1])
    np.testing.assert_allclose(decide(ours, before), denormalised(decide(theirs, normalised(before))), atol=1e-6)


@pytest.mark.parametrize("how", [None, Shooting(horizon=2, samples=16, elites=4)])
def test_a_planner_reads_and_writes_the_environments_units(how: Shooting | None) -> None:
    @partial(jax.jit, static_argnums=0)
    def plan(spec: Spec, learner: srl.Learner, before: Any) -> Any:
        policy = ModelPlanner(SRLModel(learner.actor, learner.critic, learner.model), spec, how)
        return policy.decide(LastStep(noise(0, 3).astype(jnp.float32), before), None, 3)[0]

    before, (ours, theirs) = np.float32([0.3, 3.1]), (made(CONFIG["srl"], spec) for spec in (OFF, UNIT))
    expected = denormalised(plan(UNIT, theirs, normalised(before)))
    np.testing.assert_allclose(plan(OFF, ours, before), expected, atol=1e-5)


def test_scaling_is_undone_by_unscaling() -> None:
    actions = np.random.default_rng(0).uniform(OFF.low, OFF.high, (50, 2)).astype(np.float32)
    scaled = np.asarray(OFF.normalise(jnp.asarray(actions)))
    assert np.abs(scaled).max() <= 1 + 1e-5 and np.ptp(scaled) > 1.5
    np.testing.assert_allclose(OFF.denormalise(jnp.asarray(scaled)), actions, atol=1e-6)
    np.testing.assert_allclose(OFF.normalise(jnp.asarray(OFF.middle)), 0, atol=1e-5)
    stuck = Spec(1, (-1.0, 0.3), (1.0, 0.3))
    np.testing.assert_array_equal(stuck.normalise(jnp.asarray([0.5, 0.3])), [0.5, 0])
    np.testing.assert_array_equal(stuck.denormalise(jnp.asarray([0.5, 0.7])), np.float32([0.5, 0.3]))
    choices = Spec.discrete(2, 4)
    np.testing.assert_array_equal(choices.normalise(jnp.asarray([3.0])), [3])
    assert convert_actions(actions, OFF, OFF) is actions


# --- whole runs ---


class Cart(gymnasium.Env):
    """A point to be moved to 0; the same plant whatever the unit and the middle of its action."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, unit: float = 1.0, middle: float = 0.0):
        self.unit, self.middle = unit, middle
        self.action_space = spaces.Box(np.float32(middle - unit), np.float32(middle + unit), (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x, self.time = float(self.np_random.uniform(-1, 1)), 0
        return np.array([self.x, 0], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x += 0.2 * (float(action[0]) - self.middle) / self.unit
        self.time += 1
        return np.array([self.x, self.time / 8], np.float32), -abs(self.x), False, self.time == 8, {}


for name, unit, middle in (("One", 1.0, 0.0), ("Tiny", 2.0**-10, 0.0), ("Off", 0.5, 3.0)):
    gymnasium.register(f"units/{name}-v0", entry_point=partial(Cart, unit, middle))  # type: ignore[arg-type]

TIMES = {"steps": 48, "start_steps": 16, "eval_every": 24, "log_every": 24, "checkpoint_every": 48, "eval_episodes": 2}


def trained(name: str, out: Path) -> str:
    run = api.train("td3", f"units/{name}-v0", out=out / name, quiet=True, **SIZES, **TIMES)
    return (run.path / "metrics.csv").read_text()


def test_the_same_plant_in_other_units_is_learnt_alike(tmp_path: Path) -> None:
    """To the bit where a change of unit is exact; where actions are moved far from 0, they lose digits on the way.

    Of an algorithm that is compiled soon: what updates and policies of the others do with units is above.
    """
    one, tiny, moved = (trained(name, tmp_path) for name in ("One", "Tiny", "Off"))
    assert tiny == one
    off, exact = (np.genfromtxt(text.splitlines(), delimiter=",", skip_header=1) for text in (moved, one))
    np.testing.assert_allclose(off, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "units"),
    [*((name, "bounds") for name in ("bc", "dt", "odt", "iql", "tt")), ("bc", "deviation"), ("ds4", "deviation")],
)
def test_logs_in_other_units_are_learnt_alike(algorithm: str, units: str) -> None:
    rng, episodes, steps = np.random.default_rng(0), 6, 8
    count, ends = episodes * steps, np.arange(48) % steps == steps - 1
    observations = rng.normal(size=(count, 3)).astype(np.float32)
    unit = np.clip(0.5 * observations[:, :1] + 0.2 * rng.normal(size=(count, 1)), -1, 1)
    module = algorithm_module(algorithm)
    config, _ = override(*preset("cpu", algorithm, "logs.npz"), **{**LOGGED[algorithm], "anneal_over": 0})
    if hasattr(config, "action_units"):
        config = replace(config, action_units=units)

    init = jax.jit(module.init, static_argnums=(0, 1))

    @partial(jax.jit, static_argnums=2)
    def updated(learner: Any, source: Any, what: Any) -> tuple[Any, dict[str, Any]]:
        return module.update(config, learner, source.draw(jax.random.key(1), what), jax.random.key(2))

    def learnt(spec: Spec) -> tuple[Any, dict[str, Any]]:
        low, high = np.float32(spec.low), np.float32(spec.high)
        actions = (0.5 * (low + high) + 0.5 * (high - low) * unit).astype(np.float32)
        about = About(low=spec.low, high=spec.high)
        data = trajectories(observations, actions, observations[:, 0], ends, np.zeros(count, bool), about=about)
        (what,) = windows.buckets(data.lengths, module.batches(config))[:1]
        if hasattr(module, "prepare"):
            statistics, source = module.prepare(config, spec, data, None, "")
        else:
            statistics, source = dataset_statistics.of(data, spec, units=units), windows.episodes(data, 1.0, (what,))
        learner, metrics = updated(init(config, spec, jax.random.key(0), statistics), source, what)
        trained = jax.tree.leaves(learner, is_leaf=lambda node: isinstance(node, DatasetStatistics | Discretiser))
        return [leaf for leaf in trained if not isinstance(leaf, DatasetStatistics | Discretiser)], metrics

    close(learnt(Spec(3, (-1.0,), (1.0,))), learnt(Spec(3, (2.5,), (3.5,))), 1e-3)


NARROW = np.clip(1.5 + 0.01 * np.random.default_rng(0).normal(size=(102, 1)), -2, 2)


def test_a_policy_of_logs_that_use_little_of_their_bounds_comes_back(tmp_path: Path) -> None:
    path = logs(tmp_path / "narrow.npz", actions=NARROW)
    run = learn("bc", tmp_path / "run", path, updates=100, action_units="auto")
    assert run.config.action_units == "deviation"  # type: ignore[union-attr]
    player = api.load(run.path)
    action, _ = player.act(player.begin(), np.zeros(3))
    assert abs(action[0, 0] - 1.5) < 0.1  # of a tanh in units of the bounds, 100 updates later, not so


@pytest.mark.parametrize("algorithm", ["bc", "dt", "ds4"])
def test_a_policy_of_such_logs_begins_among_their_actions(algorithm: str) -> None:
    """From its first update on; in units of the bounds it would begin about 0."""
    module, data, spec = algorithm_module(algorithm), swings(actions=NARROW), Spec(3, (-2.0,), (2.0,))
    auto, _ = override(*preset("cpu", algorithm, "logs.npz"), **{**LOGGED[algorithm], "action_units": "auto"})
    config, apart = module.for_data(auto, spec, data), replace(auto, action_units="bounds")
    assert config.action_units == "deviation"

    init, episode = jax.jit(module.init, static_argnums=(0, 1)), episode_of(0, spec, 1)

    def first(config: Any, statistics: Any) -> Any:
        return acted(module.policy(config, init(config, spec, jax.random.key(0), statistics)), episode)

    near, far = (np.asarray(first(of, module.statistics(of, spec, data))) for of in (config, apart))
    assert np.abs(near - 1.5).max() < 0.1 < np.abs(far - 1.5).max()


def test_an_algorithm_that_draws_within_bounds_has_no_other_units() -> None:
    with pytest.raises(LegatoError, match="odt draws actions within their bounds"):
        entry("odt").config(action_units="deviation")  # type: ignore[call-arg]


# --- files that are older than the option ---


@pytest.mark.parametrize("algorithm", ["sac", "td3", "srl"])
def test_what_was_written_before_is_read_as_it_was(algorithm: str) -> None:
    kind = entry(algorithm).config
    assert kind().action_units == "bounds"  # type: ignore[union-attr]
    assert files.instance(kind, {}, "config").action_units == "environment"  # type: ignore[union-attr]
    assert files.instance(kind, {"action_units": "bounds"}, "config") == kind()
    assert preset("paper", algorithm, "Hopper-v5")[0].action_units == "environment"  # type: ignore[union-attr]
    assert preset("cpu", algorithm, "Hopper-v5")[0].action_units == "bounds"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-1, 1, 0), (-0.4, 0.4, 0), (-2, 2, 0), (-0.01, 0.01, 1), (99, 101, 1)]
)
def test_units_in_which_the_published_form_cannot_learn_are_warned_of(low: float, high: float, said: int) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warn_of_units(Spec(2, (-1.0, low), (1.0, high)), "plant/Tank-v0")
    assert len(heard) == said
    assert all("action[1] of 'plant/Tank-v0'" in str(warning.message) for warning in heard)


def test_before_the_first_step_the_last_action_is_the_middle_one() -> None:
    """Of a box off centre 0 would be far outside: in rollouts, in what they store, and in a control loop."""
    spec = Spec(2, (2.5,), (3.5,))
    policy = sac.policy(CONFIG["sac"], sac.init(CONFIG["sac"], spec, jax.random.key(0)))
    rollout = Rollout(make_vec("units/Off-v0", 1), spec, Clock(1), [0], "train")
    assert rollout.members.executed == [[3.0]]
    experience, _ = rollout.run(stack([policy]), 10, None)  # an episode has 8 steps
    previous = experience.previous_action[:, 0, 0]
    assert previous[0] == previous[8] == 3.0
    np.testing.assert_array_equal(previous[1:8], experience.action[:7, 0, 0])
    assert Player(policy, spec).begin().executed == 3.0
    assert Spec.discrete(2, 5).middle == (0.0,)
