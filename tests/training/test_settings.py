"""Presets against the paper's tables, and every setting that is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from legato.algorithms import entries, entry
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_s4.config import DS4, DS4AC
from legato.algorithms.decision_transformer.config import DT, ODT, OnlineDT
from legato.algorithms.iql.config import IQL
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl.config import SRL
from legato.errors import LegatoError
from legato.options import hints
from legato.training.settings import (
    PRESETS,
    FinetuneSettings,
    OfflineSettings,
    Settings,
    finetuning_preset,
    override,
    preset,
)

# Patel & Siegelmann: train steps, random steps, steps between evaluations, whatever the environment's version.
PAPER = {
    "Pendulum-v1": (30_000, 1_000, 2_500),
    "LunarLanderContinuous-v3": (500_000, 10_000, 2_500),
    "Hopper-v5": (1_000_000, 10_000, 5_000),
    "Hopper-v4": (1_000_000, 10_000, 5_000),
    "Walker2d-v5": (1_000_000, 10_000, 5_000),
    "Ant-v5": (5_000_000, 10_000, 5_000),
    "HalfCheetah-v5": (5_000_000, 10_000, 5_000),
    "Humanoid-v5": (10_000_000, 10_000, 5_000),
    "InvertedPendulum-v5": (1_000_000, 10_000, 5_000),
    "InvertedDoublePendulum-v5": (1_000_000, 10_000, 5_000),
    "Reacher-v5": (500_000, 10_000, 5_000),
    "Swimmer-v5": (1_000_000, 10_000, 5_000),
    "mine/Reacher-v0": (500_000, 10_000, 5_000),
    "Something-Else-v3": (1_000_000, 10_000, 5_000),
}


# Whose presets are those of Patel & Siegelmann.
MODEL_FREE = [name for name, found in entries("online").items() if "action_units" in hints(found.config)]
OWN_RATE = {"temporl": 1e-3}  # of its own paper (Biedenkapp et al. 2021)


@pytest.mark.parametrize("env", PAPER)
@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_paper_preset_is_the_papers_table(algorithm: str, env: str) -> None:
    config, settings = preset("paper", algorithm, env)
    assert (settings.steps, settings.start_steps, settings.eval_every) == PAPER[env]
    assert settings.env == env
    assert (settings.eval_episodes, settings.capacity, settings.updates_per_step) == (10, 1_000_000, 1)
    rate = OWN_RATE.get(algorithm, 3e-4)
    assert (config.gamma, config.tau, config.learning_rate, config.anneal_over) == (0.99, 0.005, rate, 0)
    assert (config.batch_size, config.hidden, config.action_units) == (256, 256, "environment")
    if isinstance(config, SRL):
        assert config.model_hidden == (400, 300)
        assert (config.actor_every, config.cell) == (1, "gru")
        assert (config.teaching, config.execute, config.model_target) == ("recall", 0, "observation")
        assert not config.predict_terminations
    elif isinstance(config, SAC):
        assert config.action_repeat == 1
    else:
        assert (config.noise, config.smoothing, config.smoothing_clip, config.actor_every) == (0.1, 0.2, 0.5, 2)


@pytest.mark.parametrize("env", ["Pendulum-v1", "Hopper-v5"])
@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_cpu_preset_is_smaller_and_faster_and_otherwise_the_same(algorithm: str, env: str) -> None:
    paper, long = preset("paper", algorithm, env)
    config, short = preset("cpu", algorithm, env)
    published = {"hidden": 256, "batch_size": 256, "learning_rate": 3e-4, "tau": 0.005, "anneal_over": 0}
    published |= {"action_units": "environment", "learning_rate": OWN_RATE.get(algorithm, 3e-4)}
    if isinstance(config, SRL):
        assert (config.model_target, config.execute, config.predict_terminations) == ("difference", -1, True)
        published |= {
            "model_hidden": (400, 300),
            "model_target": "observation",
            "execute": 0,
            "predict_terminations": False,
        }
    assert dataclasses.replace(config, **published) == paper
    assert (config.hidden, config.batch_size, config.learning_rate, config.tau) == (64, 64, 1e-3, 0.01)
    assert config.anneal_over == -1
    assert short.steps < long.steps
    assert short.checkpoint_every == short.eval_every  # an evaluated policy can be gone back to


@pytest.mark.parametrize(
    ("dataset", "targets"),
    [
        ("D4RL/hopper/medium-v2", (3600, 1800)),
        ("mujoco/HalfCheetah/expert-v0", (12000, 6000)),
        ("logs/walker2d-replay.hdf5", (5000, 2500)),
        ("my_logs.npz", ()),
    ],
)
def test_paper_preset_of_logs_is_the_official_code(dataset: str, targets: tuple[float, ...]) -> None:
    """Chen et al.: 100 000 updates of 64 windows of 20 steps, evaluated ten times, asked for these returns."""
    for algorithm in ("bc", "dt", "ds4"):
        config, settings = preset("paper", algorithm, dataset)
        assert isinstance(settings, OfflineSettings)
        assert (settings.dataset, settings.env, settings.updates) == (dataset, "", 100_000)
        assert (settings.eval_every, settings.eval_episodes) == (10_000, 100)
        assert (config.batch_size, config.learning_rate, config.weight_decay) == (64, 1e-4, 1e-4)
        assert (config.clip, config.dropout) == (0.25, 0.1)
        assert settings.targets == (() if algorithm == "bc" else targets)
        if not isinstance(config, BC):
            assert (config.scale, config.gamma, config.warmup) == (1000 if targets else 0, 1, 10_000)
    config, _ = preset("paper", "dt", dataset)
    assert isinstance(config, DT)
    assert (config.layers, config.heads, config.size, config.context, config.episode_length) == (3, 1, 128, 20, 1000)
    assert (config.activation, config.decoding, config.positions) == ("relu", "window", "timestep")


@pytest.mark.parametrize(
    ("dataset", "changes"),
    [
        ("D4RL/hopper/medium-v2", {"reward_scale": 0.0}),
        ("mujoco/HalfCheetah/expert-v0", {"reward_scale": 0.0}),
        ("antmaze-large-play-v0", {"expectile": 0.9, "beta": 10.0, "reward_shift": -1.0}),
        ("rooms/sparse.npz", {"expectile": 0.9, "beta": 10.0, "reward_shift": -1.0}),
        ("D4RL/pen/human-v2", {"beta": 0.5, "dropout": 0.1}),
        ("open_logs.npz", {}),
    ],
)
def test_paper_preset_of_values_is_the_official_code(dataset: str, changes: dict[str, float]) -> None:
    """Kostrikov et al.: a million updates of 256 transitions; AntMaze is evaluated less often, in more episodes."""
    config, settings = preset("paper", "iql", dataset)
    assert config == IQL(initialisation="orthogonal", **changes)  # type: ignore[arg-type]
    assert isinstance(config, IQL) and isinstance(settings, OfflineSettings)
    base = {"expectile": 0.7, "beta": 3.0, "gamma": 0.99, "tau": 0.005, "reward_scale": 1.0, "reward_shift": 0.0}
    base |= {"hidden": 256, "layers": 2, "dropout": 0.0, "batch_size": 256, "learning_rate": 3e-4, "anneal_over": -1}
    base |= {"initialisation": "orthogonal", "anneal_critics": False}
    assert dataclasses.asdict(config) == {**base, **changes}
    often = (100_000, 100) if "reward_shift" in changes else (5_000, 10)
    assert (settings.updates, settings.eval_every, settings.eval_episodes) == (1_000_000, *often)


@pytest.mark.parametrize("algorithm", entries("offline"))
def test_cpu_preset_of_logs_is_shorter_with_longer_steps(algorithm: str) -> None:
    (paper, long), (config, short) = (preset(name, algorithm, "logs.npz") for name in ("paper", "cpu"))
    longer = {"bc": 10, "dt": 10, "odt": 10, "ds4": 30, "tt": 25 / 3, "iql": 10 / 3, "mopo": 10 / 3}[algorithm]
    assert config.learning_rate == pytest.approx(longer * paper.learning_rate)
    assert short.updates < long.updates
    assert getattr(config, "warmup", 0) <= short.updates / 5
    assert short.checkpoint_every == (short.eval_every if algorithm != "tt" else 500)  # planning takes its time


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("papr", "srl", "Pendulum-v1"), "unknown preset 'papr'; did you mean 'paper'?"),
        (("gpu-farm", "srl", "Pendulum-v1"), "unknown preset 'gpu-farm'; known: cpu, paper"),
        (("paper", "slr", "Pendulum-v1"), "unknown algorithm 'slr'; did you mean 'srl'?"),
        (("paper", "PPO", "Pendulum-v1"), f"unknown algorithm 'PPO'; known: {', '.join(sorted(entries()))}"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(names: tuple[str, str, str], words: str) -> None:
    with pytest.raises(LegatoError) as problem:
        preset(*names)
    assert str(problem.value) == words


@pytest.mark.parametrize(
    ("dataset", "rate", "decay", "updates", "target"),
    [
        ("mine/hopper/medium-v0", 1e-4, 5e-4, 5_000, 3600.0),
        ("mine/hopper/medium-replay-v0", 2e-3, 1e-4, 5_000, 3600.0),
        ("mine/walker2d/medium-replay-v0", 1e-3, 1e-3, 10_000, 5000.0),
        ("mine/halfcheetah/medium-v0", 1e-4, 5e-4, 5_000, 6000.0),
    ],
)
def test_paper_preset_of_the_online_decision_transformer_is_the_papers(
    dataset: str, rate: float, decay: float, updates: int, target: float
) -> None:
    """Zheng et al.: four layers of 512 with four heads, no positions, windows of 20 of which 5 are read, by LAMB."""
    config, settings = preset("paper", "odt", dataset)
    assert isinstance(config, ODT) and isinstance(settings, OfflineSettings)
    assert (config.layers, config.heads, config.size, config.positions) == (4, 4, 512, "none")
    assert (config.context, config.eval_context, config.optimiser, config.batch_size) == (20, 5, "lamb", 256)
    assert (config.entropy, config.multiplier, config.multiplier_learning_rate, config.scale) == (-1, 0.1, 1e-4, 1000)
    assert (config.learning_rate, config.weight_decay, config.warmup, config.clip) == (rate, decay, 10_000, 0.25)
    assert (settings.updates, settings.targets) == (updates, (target,))
    tuning, going_on = finetuning_preset("paper", "odt-online", "Hopper-v4")
    assert isinstance(tuning, OnlineDT)
    assert (tuning.updates, tuning.every, tuning.episodes, tuning.collect_target_scale, tuning.td3) == (
        300,
        1_000,
        1_000,
        2.0,
        0.0,
    )
    assert (tuning.offline_episodes, tuning.target_increment, tuning.exploration_scale, tuning.n_step) == (
        "best",
        0,
        1,
        1,
    )
    assert (tuning.learning_rate, tuning.weight_decay, tuning.continue_optimiser) == (0, -1, True)  # of pre-training
    assert going_on.steps == 1_500_000


def test_paper_preset_of_fine_tuned_decision_s4_has_none_of_what_was_added() -> None:
    tuning, _ = finetuning_preset("paper", "ds4-ac", "Hopper-v4")
    assert isinstance(tuning, DS4AC)
    assert (tuning.every, tuning.updates, tuning.critic_updates, tuning.start_steps) == (10, 4, 40, 5_000)
    assert (tuning.learning_rate, tuning.critic_learning_rate, tuning.batch_size, tuning.clip) == (1e-5, 1e-4, 64, 0.5)
    assert (tuning.target_variation, tuning.target_increment, tuning.relabel, tuning.freeze_core) == (
        0.15,
        0.1,
        True,
        True,
    )
    assert (tuning.regularisation_weight, tuning.n_step, tuning.smoothing, tuning.norm, tuning.offline_steps) == (
        0,
        1,
        0,
        False,
        0,
    )
    assert (tuning.critics_per_actor, tuning.termination_penalty, tuning.critic_reads_return) == (1, 0, True)
    assert (tuning.tau, tuning.target_every, tuning.average, tuning.gamma) == (0, 800, 1, 0.99)


@pytest.mark.parametrize("method", entries("finetuning"))
def test_presets_of_fine_tuning_are_of_their_method_and_environment(method: str) -> None:
    for name in ("cpu", "paper"):
        tuning, settings = finetuning_preset(name, method, "Hopper-v4")
        assert type(tuning) is entry(method, "finetuning").config and settings.env == "Hopper-v4"
        assert getattr(tuning, "critic_steps", 0) < settings.steps
    hopper, walker = (finetuning_preset("cpu", "ds4-ac", env) for env in ("Hopper-v4", "mine/Walker2d-v0"))
    assert (hopper[0].hidden, hopper[1].eval_episodes) == (128, 10)  # type: ignore[union-attr]
    assert (walker[0].hidden, walker[1].eval_episodes) == (256, 20)  # type: ignore[union-attr]
    with pytest.raises(LegatoError, match="unknown fine-tuner 'ds4-acc'; did you mean 'ds4-ac'"):
        finetuning_preset("cpu", "ds4-acc", "Hopper-v4")
    with pytest.raises(LegatoError, match="unknown preset 'papr'"):
        finetuning_preset("papr", "ds4-ac", "Hopper-v4")


def test_options_go_where_they_belong() -> None:
    before = preset("cpu", "srl", "Pendulum-v1")
    config, settings = override(*before, horizon=7, seeds=3, model_hidden=[8, 9])
    assert config == dataclasses.replace(before[0], horizon=7, model_hidden=(8, 9))  # type: ignore[call-arg]
    assert settings == dataclasses.replace(before[1], seeds=3)
    assert isinstance(hash(config), int)  # compilation is keyed by it
    assert override(*before) == before


@pytest.mark.parametrize(
    ("algorithm", "option", "words"),
    [
        ("srl", {"horzon": 4}, "unknown option 'horzon'; did you mean 'horizon'?"),
        ("sac", {"horizon": 4}, "unknown option 'horizon'; "),
        ("srl", {"eval_evry": 1}, "unknown option 'eval_evry'; did you mean 'eval_every'?"),
    ],
)
def test_an_unknown_option_gets_a_suggestion(algorithm: str, option: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError) as problem:
        override(*preset("cpu", algorithm, "Pendulum-v1"), **option)
    assert str(problem.value).startswith(words)


@pytest.mark.parametrize(
    ("kind", "option", "words"),
    [
        (SRL, {"horizon": 0}, "horizon must be at least 1; 0 was given"),
        (SAC, {"anneal_over": 10**20}, "anneal_over must be at most 1000000000000000; 100000000000000000000 was given"),
        (SRL, {"horizon": -2}, "horizon must be at least 1; -2 was given"),
        (SRL, {"actor_every": 0}, "actor_every must be at least 1; 0 was given"),
        (SAC, {"action_repeat": 0}, "action_repeat must be at least 1; 0 was given"),
        (SAC, {"hidden": 0}, "hidden must be at least 1; 0 was given"),
        (SRL, {"batch_size": 0}, "batch_size must be at least 1; 0 was given"),
        (SAC, {"gamma": 1.01}, "gamma must lie in [0, 1]; 1.01 was given"),
        (SAC, {"gamma": float("nan")}, "gamma must lie in [0, 1]; nan was given"),
        (SRL, {"tau": 0.0}, "tau must lie in (0, 1]; 0.0 was given"),
        (SRL, {"learning_rate": 0.0}, "learning_rate must be positive; 0.0 was given"),
        (SAC, {"anneal_over": -2}, "anneal_over must be at least -1; -2 was given"),
        (BC, {"fraction": 0.0}, "fraction must lie in (0, 1]; 0.0 was given"),
        (BC, {"fraction": 1.5}, "fraction must lie in (0, 1]; 1.5 was given"),
        (BC, {"layers": 0}, "layers must be at least 1; 0 was given"),
        (DT, {"context": 0}, "context must be at least 1; 0 was given"),
        (DT, {"gamma": 0.0}, "gamma must lie in (0, 1]; 0.0 was given"),
        (DT, {"scale": -1.0}, "scale must be positive, or 0 for the data's own; -1.0 was given"),
        (DT, {"heads": 3}, "size 128 does not divide among 3 heads"),
        (
            DT,
            {"heads": 4, "size": 12, "positions": "rotary"},
            "rotary positions need an even head size: size 12 over 4 heads gives 3",
        ),
        (DT, {"dropout": 1.0}, "dropout must lie in [0, 1); 1.0 was given"),
        (DT, {"clip": 0.0}, "clip must be positive; 0.0 was given"),
        (DT, {"warmup": -1}, "warmup must be at least 0; -1 was given"),
        (DS4, {"order": 7}, "order counts conjugate pairs and is even; 7 was given"),
        (DS4, {"core_learning_rate": 0.0}, "core_learning_rate must be positive; 0.0 was given"),
        (DS4, {"weight_decay": -1e-4}, "weight_decay must be at least 0 and finite; -0.0001 was given"),
        (DS4, {"length": 0}, "length must be at least 1; 0 was given"),
        (
            DS4,
            {"length": 1, "paper_alignment": True},
            "length must be at least 2 in the paper's alignment; 1 was given",
        ),
        (IQL, {"hidden": 0}, "hidden must be at least 1; 0 was given"),
        (IQL, {"layers": 0}, "layers must be at least 1; 0 was given"),
        (IQL, {"expectile": 0.0}, "expectile must lie in (0, 1); 0.0 was given"),
        (IQL, {"beta": -1.0}, "beta must be at least 0 and finite; -1.0 was given"),
        (IQL, {"reward_scale": -1.0}, "reward_scale must be positive, or 0 for the data's own; -1.0 was given"),
        (IQL, {"dropout": 1.0}, "dropout must lie in [0, 1); 1.0 was given"),
        (OfflineSettings, {"updates": 0}, "updates must be at least 1; 0 was given"),
        (OfflineSettings, {"seed": -1}, "seed must be at least 0; -1 was given"),
        (OfflineSettings, {"checkpoint_every": 0}, "checkpoint_every must be at least 1; 0 was given"),
        (Settings, {"steps": 0}, "steps must be at least 1; 0 was given"),
        (Settings, {"seeds": 0}, "seeds must be at least 1; 0 was given"),
        (Settings, {"seed": -1}, "seed must be at least 0; -1 was given"),
        (Settings, {"start_steps": -1}, "start_steps must be at least 0; -1 was given"),
        (Settings, {"environments": 0}, "environments must be at least 1; 0 was given"),
        (Settings, {"capacity": 0}, "capacity must be at least 1; 0 was given"),
        (Settings, {"eval_every": 0}, "eval_every must be at least 1; 0 was given"),
        (Settings, {"eval_episodes": 0}, "eval_episodes must be at least 1; 0 was given"),
        (Settings, {"log_every": 0}, "log_every must be at least 1; 0 was given"),
        (Settings, {"checkpoint_every": 0}, "checkpoint_every must be at least 1; 0 was given"),
        (Settings, {"updates_per_step": 0.0}, "updates_per_step must be positive; 0.0 was given"),
        (Settings, {"updates_per_step": float("nan")}, "updates_per_step must be positive; nan was given"),
        (Settings, {"updates_per_step": float("inf")}, "updates_per_step must be positive; inf was given"),
    ],
)
def test_numbers_out_of_range_are_named(kind: Any, option: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError) as problem:
        kind(**option)
    assert str(problem.value) == words


@pytest.mark.parametrize("kind", [Settings, OfflineSettings, FinetuneSettings])
def test_seeds_and_environments_end_where_a_process_does(kind: Any) -> None:
    """Randomness derives from 32 bits, and a file may ask for any number of environments."""
    assert kind(seed=2**31 - 2, seeds=2).seeds == 2
    with pytest.raises(LegatoError, match=r"seeds must lie below 2147483648; 2147483648 was asked for"):
        kind(seed=2**31 - 2, seeds=3)
    with pytest.raises(LegatoError, match="1000000 environments in one process; at most 65536: lower eval_episodes"):
        kind(seeds=1000, eval_episodes=1000)
    if hasattr(kind, "environments"):
        with pytest.raises(LegatoError, match="100000 environments in one process; at most 65536: lower environments"):
            kind(environments=100_000)


def test_every_preset_has_a_description() -> None:
    for name in PRESETS:
        assert PRESETS[name]
        assert preset(name, "srl", "Pendulum-v1")
