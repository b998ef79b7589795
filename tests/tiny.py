"""Small worlds and policies whose every number says where it came from, and runs that take seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from legato import api
from legato.algorithms import algorithm as algorithm_module
from legato.data import formats
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, trajectories
from legato.envs.checked import Checked
from legato.envs.environments import GymnasiumEnvironments
from legato.policy import Policy, Step
from legato.training import online, policy_file
from legato.training.policy_file import Card
from legato.training.run import Run
from legato.training.settings import override, preset

WIDE = Spec(3, (-1000.0,) * 4, (1000.0,) * 4)


class Diary(gymnasium.Env):
    """Writes down every action it is given. Observes `(start, t, executed[2])`; `start` is drawn from the seed.

    An episode is truncated after `limit` steps and terminates after `dies` steps, whichever is first. The reward is
    `executed[2] / 4 - t`, so that all its numbers are exact in float32.
    """

    def __init__(self, limit: int = 1000, dies: int = 1000, spec: Spec = WIDE, noise: Iterator[int] | None = None):
        self.limit, self.dies, self.noise = limit, dies, noise
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Box(np.array(spec.low, np.float32), np.array(spec.high, np.float32))
        self.episodes: list[list[np.ndarray]] = []
        self.seeds: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.start, self.t = float(self.np_random.integers(100)), 0
        if self.noise is not None:
            self.start += next(self.noise)
        self.episodes.append([])
        self.seeds.append(int(seed or 0))
        return np.array([self.start, 0, 0], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.t < min(self.limit, self.dies), "stepped after its end"
        self.episodes[-1].append(np.array(action))
        reward = float(action[-1]) / 4 - self.t
        self.t += 1
        observation = np.array([self.start, self.t, action[-1]], np.float32)
        return observation, reward, self.t >= self.dies, self.t >= self.limit, {}


def environments(*members: gymnasium.Env) -> GymnasiumEnvironments:
    """The rollout's view of some environments."""
    return GymnasiumEnvironments("Diary", [Checked(member, "Diary") for member in members])


class Scribe(Policy[Any]):
    """Writes into every action who asked for it: `(decisions so far, steps observed, place in the plan, checksum)`.

    The checksum folds every part of every step it was shown into its memory; `weight` tells
    policies apart. With a key, its first number is added to the checksum.
    """

    weight: jax.Array

    def init_state(self, command: Any) -> Any:
        return {"observed": jnp.zeros(()), "decided": jnp.zeros(()), "sum": jnp.zeros(())}

    def observe(self, state: Any, step: Step) -> Any:
        seen = (
            step.observation @ jnp.array([1.0, 2.0, 4.0]) + 8 * step.reward + 16 * step.executed.sum() + 32 * step.first
        )
        return {**state, "observed": state["observed"] + 1, "sum": (state["sum"] + self.weight * seen) / 64}

    def decide(self, state: Any, key: jax.Array | None, length: int) -> tuple[jax.Array, Any]:
        state = {**state, "decided": state["decided"] + 1}
        noise = jnp.zeros(()) if key is None else jax.random.uniform(key)
        columns = jnp.stack([state["decided"], state["observed"], jnp.zeros(()), state["sum"] + noise])
        plan = jnp.broadcast_to(columns, (length, 4))
        return plan.at[:, 2].set(jnp.arange(length, dtype=float)), state


# --- runs ---

# Step sizes do not fall: a run of another length would have others, and its updates be compiled anew.
SIZES: dict[str, Any] = {"hidden": 16, "batch_size": 16, "start_steps": 100, "eval_episodes": 2, "anneal_over": 0}
SRL4: dict[str, Any] = {**SIZES, "horizon": 4, "model_hidden": (16, 16)}
SAC3: dict[str, Any] = {**SIZES, "action_repeat": 3}  # an episode of 200 steps ends within a decision
DECISIONS: dict[str, Any] = {"updates": "decision", "seed": 5, "seeds": 2, "environments": 2}
# Checkpoints are due between two rows of metrics. The buffer is as large whatever the steps, so that short and long
# runs share their compilations.
TIMES: dict[str, Any] = {"steps": 600, "eval_every": 300, "log_every": 150, "checkpoint_every": 200, "capacity": 64}


def train(algorithm: str, out: Path, env: str = "Pendulum-v1", **options: Any) -> Run:
    """A run that takes seconds."""
    sizes = {"srl": SRL4, "sac": SAC3, "td3": SIZES}[algorithm]
    return api.train(algorithm, env, out=out, quiet=True, **{**sizes, **TIMES, **options})


def instead(monkeypatch: pytest.MonkeyPatch, loops: ModuleType, advance: Callable[..., Any]) -> None:
    """Let a module's loops call this for their updates; what updates would report they still ask the true one."""
    advance.eval_shape = loops.advance.eval_shape  # type: ignore[attr-defined]
    monkeypatch.setattr(loops, "advance", advance)


def nothing_learnt(
    monkeypatch: pytest.MonkeyPatch, loops: ModuleType, names: tuple[str, ...] = (), seeds: int = 1
) -> list[Any]:
    """Let a module's loops count their updates, but make none and trace none; the metrics of these `names` are 0.

    Returns a list of the hyper-parameters that each call will have been given.
    """
    metrics, given = {name: jnp.asarray(np.zeros(seeds, np.float32)) for name in names}, []

    def advance(module: Any, config: Any, how: Any, learner: Any, source: Any, *rest: Any) -> Any:
        given.append(config)
        return (learner, source, metrics) if loops is online else (learner, metrics)

    advance.eval_shape = lambda *args: (None, None, metrics) if loops is online else (None, metrics)  # type: ignore[attr-defined]
    monkeypatch.setattr(loops, "advance", advance)
    return given


def struck(monkeypatch: pytest.MonkeyPatch, loops: ModuleType, evaluation: int) -> list[int]:
    """Let Ctrl-C come at the third step of so many-th of a module's evaluations. Returns the steps each has made."""
    play, made = loops.episodes, []

    def measured(policies: Any, judge: Any, *args: Any, **options: Any) -> np.ndarray:
        number, step = len(made), judge.step
        made.append(0)

        def counted(index: np.ndarray, actions: np.ndarray) -> Any:
            made[number] += 1
            if (len(made), made[number]) == (evaluation, 3):
                signal.raise_signal(signal.SIGINT)
            return step(index, actions)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(judge, "step", counted)
            return play(policies, judge, *args, **options)

    monkeypatch.setattr(loops, "episodes", measured)
    return made


# --- runs from logs ---

LOGGED: dict[str, dict[str, Any]] = {
    "bc": {"hidden": 8, "layers": 1, "batch_size": 8},
    "dt": {"layers": 1, "size": 8, "context": 3, "batch_size": 8, "episode_length": 200, "warmup": 10},
    "iql": {"hidden": 8, "layers": 1, "batch_size": 8},
    "ds4": {"layers": 1, "channels": 4, "order": 4, "embedding": 4, "length": 3, "batch_size": 4, "warmup": 10},
    "odt": {"layers": 1, "heads": 1, "size": 8, "context": 3, "eval_context": 2, "batch_size": 8, "warmup": 10},
    "tt": {"bins": 6, "window": 3, "layers": 1, "heads": 2, "size": 16, "context": 3, "batch_size": 8, "warmup": 10},
}
LOGGED = {name: {**sizes, "anneal_over": 0} for name, sizes in LOGGED.items()}
# Checkpoints are due between two rows of metrics, and evaluations with every second of them.
UPDATES: dict[str, Any] = {"updates": 400, "eval_every": 200, "log_every": 150, "checkpoint_every": 100}
UPDATES |= {"eval_episodes": 2}


def swings(**changes: Any) -> Trajectories:
    """Twelve episodes of random numbers in the shapes of Pendulum-v1, whose returns lie between -8 and 8."""
    rng, lengths = np.random.default_rng(0), np.arange(3, 15)
    steps, last = int(lengths.sum()), np.cumsum(lengths) - 1
    found = {
        "observations": rng.normal(size=(steps, 3)),
        "actions": rng.uniform(-2, 2, (steps, 1)),
        "rewards": rng.normal(size=steps),
        "terminations": np.isin(np.arange(steps), last),
        "truncations": np.zeros(steps, bool),
        "about": About("swings", low=(-2.0,), high=(2.0,)),
    }
    return trajectories(**{**found, **changes})


def logs(path: Path, **changes: Any) -> str:
    """The same in a file."""
    formats.save(swings(**changes), path)
    return str(path)


def learn(algorithm: str, out: Path, dataset: str, **options: Any) -> Run:
    """A run from logs that takes seconds."""
    return api.train(algorithm, dataset=dataset, out=out, quiet=True, **{**LOGGED[algorithm], **UPDATES, **options})


@partial(jax.jit, static_argnums=(0, 1, 2))
def new_policy(module: ModuleType, config: Any, spec: Spec, key: jax.Array, *statistics: Any) -> Policy[Any]:
    """What a new learner deploys, compiled as a whole."""
    return module.policy(config, module.init(config, spec, key, *statistics))


def untrained(algorithm: str, out: Path, env: str = "Pendulum-v1", **options: Any) -> Run:
    """A run that looks finished, of policies with random weights."""
    sizes = {"srl": SRL4, "sac": SAC3, "td3": SIZES, "temporl": {**SIZES, "max_skip": 4}}[algorithm]
    config, settings = override(*preset("cpu", algorithm, env), **{**sizes, **TIMES, **options})
    run = Run.create(out, algorithm, "cpu", config, settings, online.check(algorithm, config, settings))
    module = algorithm_module(algorithm)
    for seed in run.seeds:
        policy = new_policy(module, config, run.spec, jax.random.key(seed))
        for which in ("last", "best"):
            card = Card(algorithm, config, run.spec, {"environment": env, "seed": seed, "which": which})
            policy_file.save(run.path / "policy" / f"seed-{seed}" / which, policy, card)
    return run


DT2: dict[str, Any] = {"context": 2, "layers": 1, "size": 8, "dropout": 0.0, "episode_length": 8}
BC16: dict[str, Any] = {"hidden": 16, "layers": 1}
TT3: dict[str, Any] = {
    "bins": 6,
    "window": 3,
    "layers": 1,
    "heads": 2,
    "size": 16,
    "context": 3,
    "beams": 8,
    "elite_fraction": 0.0,
    "plan_temperature": 0.0,
}


def untrained_on_logs(
    algorithm: str, out: Path, spec: Spec = WIDE, statistics: Any = None, data: Any = None, **options: Any
) -> Run:
    """A run that looks finished, of policies with random weights that learnt from logs of such `statistics`."""
    sizes = {"dt": DT2, "bc": BC16, "tt": TT3, "iql": BC16, "ds4": LOGGED["ds4"]}[algorithm]
    config, settings = override(*preset("cpu", algorithm, "logs.npz"), **{"dataset": "logs.npz", **sizes, **options})
    run = Run.create(out, algorithm, "cpu", config, settings, spec, data)
    module = algorithm_module(algorithm)
    for seed in run.seeds:
        known = statistics or DatasetStatistics.identity(spec)
        policy = new_policy(module, config, spec, jax.random.key(seed), known)
        for step, which in ((7, "best"), (9, "last")):
            card = Card(algorithm, config, spec, {"seed": seed, "step": step, "which": which})
            policy_file.save(run.path / "policy" / f"seed-{seed}" / which, policy, card)
    return run


def flags(options: dict[str, Any]) -> list[str]:
    """Options of `api.train` as the command line wants them."""
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def spawn(args: list[str], cwd: Path) -> subprocess.Popen[str]:
    """The `legato` command in a process of its own, that may be killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", "from legato.cli import main; main()", *args],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
