"""Learning from logs: what is drawn follows from seed and update alone; what was saved is what was trained; what does
not fit is refused before there is a folder. What every loop does is told by `test_loop`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from safetensors.numpy import load_file
from tests.learners import is_float
from tests.runs import load, rows, same_end, saved
from tests.tiny import LOGGED, learn, logs, nothing_learnt, swings

from legato import api
from legato.algorithms import algorithm as algorithm_module
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer.config import DT
from legato.data import dataset_statistics, formats, sets, windows
from legato.data import trajectories as data_logs
from legato.data.spec import Spec
from legato.data.trajectories import About
from legato.envs import make_vec
from legato.errors import LegatoError, LegatoWarning
from legato.rollout import Clock, episodes, stack
from legato.training import logged_data, offline
from legato.training.policy_file import fill
from legato.training.run import Run
from legato.training.settings import OfflineSettings, override, preset

# Two returns to ask for, within the data; two seeds.
METRICS = ("loss", "gradient_norm")
ASKED: dict[str, Any] = {"env": "Pendulum-v1", "seed": 3, "seeds": 2, "targets": (1.0, -2.0)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return logs(tmp_path_factory.mktemp("data") / "swings.npz")


@pytest.fixture(scope="module")
def asked(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The Decision Transformer, seeds 3 and 4, 400 updates in one go. Read only."""
    return learn("dt", tmp_path_factory.mktemp("runs") / "asked", dataset, **ASKED)


@pytest.fixture(scope="module")
def alone(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Behaviour cloning without an environment, 400 updates in one go. Read only."""
    return learn("bc", tmp_path_factory.mktemp("runs") / "alone", dataset)


# --- killed, stopped, resumed ---


def test_a_streamed_run_ends_the_same_wherever_it_goes_on(dataset: str, tmp_path: Path) -> None:
    """What the host draws follows from seed and update too; it is not what the device draws."""
    one = learn("bc", tmp_path / "one", dataset, stream="always", seeds=2)
    shutil.copytree(one.path, tmp_path / "back")
    offline.resume(tmp_path / "back", 300, quiet=True)
    same_end(tmp_path / "back", one.path)
    assert len({row["loss"] for row in rows(one)}) == len(rows(one))


def test_what_is_drawn_does_not_depend_on_how_updates_are_bundled(
    alone: Run, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "DISPATCH", 37)
    other = learn("bc", tmp_path / "other", dataset)
    one, two = (load_file(run.policy_path() / "weights.safetensors") for run in (alone, other))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_dataset_that_changed_is_refused(alone: Run, dataset: str, tmp_path: Path) -> None:
    shutil.copytree(alone.path, tmp_path / "run")
    body = json.loads((tmp_path / "run" / "config.json").read_text())
    changed = swings()
    changed.actions[17] += 0.001
    with pytest.raises(LegatoError) as problem:
        offline.resume(tmp_path / "run", quiet=True, data=changed)
    words = "train anew, or name with `dataset` where that is now"
    assert str(problem.value) == f"'{dataset}' is not what it was when '{tmp_path}/run' began; {words}"
    body["settings"]["dataset"] = str(tmp_path / "gone.npz")
    del body["digests"], body["data"]["path"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(body))
    with pytest.raises(LegatoError, match=r"^there is no file '.*gone\.npz'; `dataset` says where it is now$"):
        offline.resume(tmp_path / "run", quiet=True)


def test_a_run_finds_its_dataset_from_any_folder_and_is_told_where_it_was_moved(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("there", "elsewhere", "moved"):
        (tmp_path / name).mkdir()
    shutil.copy(dataset, tmp_path / "there" / "logs.npz")
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setattr(offline.Session, "train", lambda session, loop: session.checkpoints.close())
    run = learn("bc", Path("run"), "logs.npz")
    assert run.settings.dataset == "logs.npz"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert logged_data.load_dataset(run).steps == swings().steps
    (tmp_path / "there" / "logs.npz").rename(tmp_path / "moved" / "logs.npz")
    with pytest.raises(LegatoError, match=r"^there is no file 'logs.npz'; `dataset` says where it is now$"):
        logged_data.load_dataset(run)
    assert logged_data.load_dataset(run, "../moved/logs.npz").steps == swings().steps
    logs(tmp_path / "other.npz", rewards=np.zeros(swings().steps))
    with pytest.raises(LegatoError, match=r"^'../other.npz' is not the dataset that 'run' began with$"):
        logged_data.load_dataset(run, "../other.npz")


def test_a_fingerprint_is_of_every_number_and_episode() -> None:
    data = swings()
    names = {offline.fingerprint(data), offline.fingerprint(replace(data, rewards=None))}
    for field in ("observations", "actions", "rewards"):
        array = getattr(data, field).copy()
        array.flat[-1] += 0.5
        names.add(offline.fingerprint(replace(data, **{field: array})))
    names.add(offline.fingerprint(replace(data, offsets=np.delete(data.offsets, 3))))
    names.add(offline.fingerprint(sets.select(data, range(11))))
    assert len(names) == 7
    assert offline.fingerprint(swings()) == offline.fingerprint(data)


# --- what a run leaves behind ---


def test_a_run_holds_what_was_asked_and_measured(asked: Run, dataset: str) -> None:
    found = rows(asked)
    assert [(row["step"], row["seed"]) for row in found] == [
        (step, seed) for step in ("150", "200", "300", "400") for seed in ("3", "4")
    ]
    assert list(found[0]) == ["step", "seed", "eval_return", "eval_return_-2", "gradient_norm", "loss"]
    assert all(np.isfinite(float(row["loss"])) and float(row["gradient_norm"]) > 0 for row in found)
    evaluated = [row["step"] for row in found if row["eval_return"] and row["eval_return_-2"]]
    assert evaluated == ["200", "200", "400", "400"]
    assert saved(asked.path) == [300, 400]
    run, data = Run(asked.path), swings()
    assert (run.algorithm, run.seeds, run.environment, run.conditioned) == ("dt", [3, 4], "Pendulum-v1", True)
    assert run.spec == Spec(3, (-2.0,), (2.0,))
    assert run.data == {
        "environment": "Pendulum-v1",
        "reference": None,
        "episodes": 12,
        "steps": data.steps,
        "fingerprint": offline.fingerprint(data),
        "path": dataset,
    }
    card = api.load(asked.path, seed=4).card
    assert card.extra == {
        "environment": "Pendulum-v1",
        "dataset": dataset,
        "seed": 4,
        "step": 400,
        "run": "asked",
        "which": "last",
    }


def test_metrics_are_the_means_of_the_updates_since_the_row_before(asked: Run, alone: Run, dataset: str) -> None:
    """Redone one update at a time from the keys that the documentation names."""
    config, data = alone.config, swings()
    module, statistics = algorithm_module("bc"), dataset_statistics.of(data, alone.spec)
    k_init, k_update = jax.random.split(jax.random.key(0))
    learner, packed = module.init(config, alone.spec, k_init, statistics), offline.windows.episodes(data)

    @jax.jit
    def update(learner: Any, i: int) -> Any:
        k_draw, k = jax.random.split(jax.random.fold_in(k_update, i))
        return module.update(config, learner, packed.draw(k_draw, module.batches(config)), k)

    losses = []
    for i in range(300):
        learner, metrics = update(learner, i)
        losses.append(float(metrics["loss"]))
    first, second = rows(alone)[:2]
    assert float(first["loss"]) == pytest.approx(np.mean(losses[:150]), rel=1e-4)
    assert float(second["loss"]) == pytest.approx(np.mean(losses[150:]), rel=1e-4)
    assert np.mean(losses[150:]) < np.mean(losses[:150])


def test_the_first_target_picks_the_best_policy(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for the first, seed 0 earns less than before and seed 1 more; for the second, the reverse."""
    found = iter([[5, 1], [1, 5], [4, 2], [9, 0]])
    nothing_learnt(monkeypatch, offline, METRICS, seeds=2)
    monkeypatch.setattr(offline, "episodes", lambda *args, **options: np.array(next(found), float)[:, None])
    run = learn("dt", tmp_path / "run", dataset, seeds=2, env="Pendulum-v1", targets=(1.0, 2.0))
    assert [api.load(run.path, seed, "best").card.extra["step"] for seed in (0, 1)] == [200, 400]
    assert [api.load(run.path, seed).card.extra["step"] for seed in (0, 1)] == [400, 400]


def test_a_saved_policy_is_the_one_that_was_trained_and_measured(asked: Run) -> None:
    """Its numbers are the checkpoint's; played again for the same returns, it earns what the metrics say."""
    _, state = load(asked.path)
    module, seeds = algorithm_module("dt"), asked.seeds
    skeleton = jax.eval_shape(
        jax.vmap(partial(module.init, asked.config, asked.spec)), jax.random.split(jax.random.key(0), 2)
    )
    learners = fill(skeleton, state["learner"], "checkpoint")
    loaded = [api.load(asked.path, seed) for seed in seeds]
    for i, player in enumerate(loaded):
        trained = module.policy(asked.config, jax.tree.map(lambda leaf, i=i: leaf[i], learners))
        jax.tree.map(np.testing.assert_array_equal, trained, player.policy)
    environment = make_vec("Pendulum-v1", 4)
    last = [row for row in rows(asked) if row["step"] == "400"]
    for target, column in ((1.0, "eval_return"), (-2.0, "eval_return_-2")):
        policies = stack([player.policy for player in loaded])
        earned = episodes(policies, environment, asked.spec, Clock(1), seeds, "select", command=target).mean(axis=1)
        np.testing.assert_allclose(earned, [float(row[column]) for row in last], rtol=1e-5)
    environment.close()


def test_a_loaded_policy_asks_for_what_the_data_hold(asked: Run) -> None:
    player = api.load(asked.path)
    observation = np.array([0.5, -0.5, 0.1], np.float32)
    by_default, _ = player.act(player.begin(), observation, 3)
    target = float(np.sort(data_logs.returns(sets.top(swings(), 0.1))).mean())
    there, _ = player.act(player.begin(target), observation, 3)
    np.testing.assert_allclose(by_default, there, rtol=1e-6)
    elsewhere, _ = player.act(player.begin(target - 30), observation, 3)
    assert np.abs(elsewhere - there).max() > 1e-5
    assert by_default.shape == (3, 1)


def test_without_an_environment_policies_are_saved_and_nothing_is_played(alone: Run) -> None:
    assert list(rows(alone)[0]) == ["step", "seed", "gradient_norm", "loss"]
    assert [row["step"] for row in rows(alone)] == ["150", "300", "400"]
    assert alone.environment is None
    for which in ("last", "best"):
        player = api.load(alone.path, which=which)
        assert player.card.extra["step"] == 400
        assert player.card.extra["environment"] is None
        assert player.act(player.begin(), np.zeros(3), 2)[0].shape == (2, 1)


# --- several seeds ---


class Teller:
    """Stands in for an algorithm: its learner is a list of what each update was given."""

    @staticmethod
    def update(config: Any, learner: Any, batch: Any, key: Any) -> Any:
        given = jax.numpy.stack([batch.mask.shape[0], batch.mask.shape[1], batch.actions.sum()])
        told = {"told": learner["told"].at[learner["updates"]].set(given), "updates": learner["updates"] + 1}
        return told, {"loss": batch.mask.sum().astype(float)}


def test_every_seed_eats_from_the_updates_bucket_what_it_would_eat_alone() -> None:
    data, updates = swings(), 60
    batch_specs = offline.windows.buckets(data.lengths, offline.windows.BatchSpec(2, 14, whole=True))
    source = offline.windows.episodes(data, batch_specs=batch_specs)
    keys = jax.jit(jax.vmap(jax.random.key))(np.arange(2))

    @partial(jax.jit, static_argnums=2)
    def alone(key: Any, i: int, draw: Any) -> Any:
        k_draw, _ = jax.random.split(jax.random.fold_in(key, i))
        return source.draw(k_draw, draw).actions.sum()

    def told(keys: Any, first: int, count: int) -> np.ndarray:
        before = np.zeros((len(keys), updates, 3), np.float32), np.full(len(keys), first, np.int32)
        learner = dict(zip(("told", "updates"), map(jax.numpy.asarray, before), strict=True))
        return np.asarray(offline.advance(Teller, None, batch_specs, learner, source, keys, first, count)[0]["told"])

    together = told(keys, 0, updates)
    for seed in range(2):
        np.testing.assert_allclose(told(keys[seed : seed + 1], 0, updates)[0], together[seed], rtol=1e-5)
    assert np.abs(together[0, :, 2] - together[1, :, 2]).max() > 0.1
    np.testing.assert_array_equal(told(keys, 20, 7)[:, 20:27], together[:, 20:27])
    bucket_of, second = jax.jit(partial(offline.windows.bucket_of, source)), keys[1]
    for i in range(updates):
        draw = batch_specs[int(bucket_of(i))]
        assert tuple(together[0, i, :2]) == tuple(together[1, i, :2]) == (draw.size, draw.length)
        assert together[1, i, 2] == pytest.approx(float(alone(second, i, draw)), abs=1e-4)
    assert {tuple(sizes) for sizes in together[0, :, :2]} == {(7, 4), (4, 7), (2, 14)}


# --- bounds that are one number ---


@pytest.mark.parametrize("algorithm", LOGGED)
def test_an_action_whose_bounds_are_equal_is_learnt_with(algorithm: str) -> None:
    actions = np.concatenate([swings().actions, np.full((102, 1), 0.3)], axis=1)
    data = swings(actions=actions, about=About("fixed", low=(-2.0, 0.3), high=(2.0, 0.3)))
    config, settings = override(*preset("cpu", algorithm, "fixed.npz"), dataset="fixed.npz", **LOGGED[algorithm])
    spec, data = logged_data.check(algorithm, config, settings, data)
    module, key = algorithm_module(algorithm), jax.random.key(0)
    if hasattr(module, "prepare"):
        statistics, source = module.prepare(config, spec, data, None, "fixed")
        batch_specs = windows.buckets(data.lengths, module.batches(config))
    else:
        statistics, batch_specs = (
            dataset_statistics.of(data, spec),
            windows.buckets(data.lengths, module.batches(config))[-1:],
        )
        source = windows.episodes(data, 1.0, batch_specs)

    @jax.jit
    def updated(learner: Any, source: Any, i: int) -> Any:
        k_draw, k_update = jax.random.split(jax.random.fold_in(key, i))
        return module.update(config, learner, source.draw(k_draw, batch_specs[-1]), k_update)

    learner = jax.jit(partial(module.init, config, spec))(key, statistics)
    for i in range(2):
        learner, metrics = updated(learner, source, i)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((learner, metrics)) if is_float(leaf))


# --- what does not fit ---


class Cell(gymnasium.Env):
    """Pendulum's spaces, or others."""

    def __init__(self, observed: int = 3, action: Any = None):
        self.observation_space = spaces.Box(-1.0, 1.0, (observed,), np.float32)
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32) if action is None else action

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return np.zeros(self.observation_space.shape or (), np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"observed": 4}, "swings and 'Cell-v0' differ in observations of so many numbers: 3 and 4"),
        ({"action": spaces.Discrete(4)}, "swings and 'Cell-v0' differ in discrete actions: None and 4"),
        (
            {"action": spaces.Box(-2.0, 2.0, (2,), np.float32)},
            "swings and 'Cell-v0' differ in actions of so many numbers: 1 and 2",
        ),
        (
            {"action": spaces.Box(-1.0, 1.0, (1,), np.float32)},
            "swings: 53 of 102 actions lie outside their bounds, first in step 2 of episode 0: number 0 is -1.49057, "
            "not in [-1, 1]; `clip_actions` moves them to the bounds",
        ),
        ({"action": spaces.Box(-1.0, np.inf, (1,), np.float32)}, "action[0] of 'Cell-v0' has no finite bounds"),
    ],
)
def test_data_and_environment_that_differ_are_refused_before_there_is_a_folder(
    kwargs: dict[str, Any], words: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gymnasium.registry, "Cell-v0", EnvSpec("Cell-v0", Cell, kwargs=kwargs))
    with pytest.raises(LegatoError) as problem:
        learn("bc", tmp_path / "run", dataset, env="Cell-v0")
    assert str(problem.value).startswith(words)
    assert "\n" not in str(problem.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", [0, 5])
def test_whole_numbers_are_choices_where_the_environment_takes_these(
    start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = {"action": spaces.Discrete(4, start=start)}
    monkeypatch.setitem(gymnasium.registry, "Cell-v0", EnvSpec("Cell-v0", Cell, kwargs=four))
    given = swings()
    columns = {name: getattr(given, name) for name in ("observations", "rewards", "terminations")}
    actions = start + np.arange(given.steps) % 4
    np.savez(tmp_path / "whole.npz", **columns, actions=actions)
    with pytest.raises(LegatoError, match=r"npz' has whole numbers \(int64\) for actions: add an array 'choices'"):
        formats.load(tmp_path / "whole.npz")
    settings = OfflineSettings(dataset=str(tmp_path / "whole.npz"), env="Cell-v0")
    spec, data = logged_data.check("bc", BC(), settings, logged_data.read(settings))
    assert spec == Spec.discrete(3, 4)
    assert (data.about.choices, data.about.start) == (4, start)
    np.testing.assert_array_equal(data.actions, actions - start)
    np.savez(tmp_path / "whole.npz", **columns, actions=actions + 1)
    with pytest.raises(LegatoError, match=f"step 0 of episode 1 has action {start + 4} of 4 discrete ones"):
        logged_data.read(settings)


def test_an_episode_longer_than_the_environment_allows_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gymnasium.registry, "Cell-v0", EnvSpec("Cell-v0", Cell, max_episode_steps=13))
    settings = OfflineSettings(dataset="swings", env="Cell-v0")
    with pytest.warns(LegatoWarning, match="swings has an episode of 14 steps, and 'Cell-v0' ends them after 13"):
        logged_data.check("bc", BC(), settings, swings())


def test_actions_outside_an_environments_bounds_are_moved_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = spaces.Box(-1.0, 0.5, (1,), np.float32)
    monkeypatch.setitem(gymnasium.registry, "Cell-v0", EnvSpec("Cell-v0", Cell, kwargs={"action": box}))
    settings = OfflineSettings(dataset="swings", env="Cell-v0", clip_actions=True)
    with pytest.warns(LegatoWarning, match="swings bounds its actions by -2 and 2, the environment by -1 and 0.5"):
        spec, data = logged_data.check("bc", BC(), settings, swings())
    assert spec == Spec(3, (-1.0,), (0.5,))
    np.testing.assert_array_equal(data.actions, np.clip(swings().actions, -1, 0.5))


def test_an_environments_bounds_stand_above_the_datas() -> None:
    """Actions that all lie within [-1, 1], without reaching its ends, say nothing of a box twice as wide."""
    small = swings(actions=swings().actions / 2.1, about=About("small"))
    assert small.about.high == (1.0,)
    for env, high in (("Pendulum-v1", (2.0,)), ("", (1.0,))):
        spec, _ = logged_data.check("bc", BC(), OfflineSettings(env=env), small)
        assert spec.high == high


@pytest.mark.parametrize(
    ("algorithm", "options", "changes", "words"),
    [
        ("dt", {}, {"rewards": None}, "swings has no rewards: it can be imitated (bc; dt and ds4 with `returns=False`"),
        (
            "ds4",
            {},
            {"rewards": None},
            "swings has no rewards: it can be imitated (bc; dt and ds4 with `returns=False`",
        ),
        ("bc", {"fraction": 0.1}, {"rewards": None}, "swings has no rewards"),
        ("iql", {}, {"rewards": None}, "swings has no rewards"),
        ("iql", {"expectile": 1.0}, {}, "expectile must lie in (0, 1); 1.0 was given"),
        (
            "dt",
            {"episode_length": 13, "positions": "timestep"},
            {},
            "swings has an episode of 14 steps, this model a table of 13: raise `episode_length`",
        ),
        (
            "bc",
            {},
            {"about": About("swings")},
            "swings does not say how its actions are bounded; name its environment with `env`",
        ),
        ("bc", {"env": "Hoper-v5"}, {}, "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?"),
        ("bc", {"hiden": 3}, {}, "unknown option 'hiden'; did you mean 'hidden'?"),
        ("dt", {"size": 9, "heads": 2}, {}, "size 9 does not divide among 2 heads"),
        (
            "dt",
            {"delay_rewards": True, "gamma": 0.9},
            {},
            "a delayed return stays as it was asked; gamma 0.9 would discount it: leave",
        ),
        (
            "ds4",
            {"delay_rewards": True, "gamma": 0.9},
            {},
            "a delayed return stays as it was asked; gamma 0.9 would discount it: leave",
        ),
        ("dt", {"targets": (3.0, 1.0, 3.0000001)}, {}, "a target return of 3 is asked for twice"),
        (
            "dt",
            {"env": "Pendulum-v1", "episode_length": 199, "positions": "timestep", "clip_actions": True},
            {},
            "its environment has episodes of 200 steps, this model a table of 199: raise `episode_length`",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_before_there_is_a_folder(
    algorithm: str, options: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = logs(tmp_path / "swings.npz", **changes)
    with pytest.raises(LegatoError) as problem:
        learn(algorithm, tmp_path / "run", file, **options)
    assert str(problem.value).startswith(words)
    assert [path.name for path in tmp_path.iterdir()] == ["swings.npz"]


def test_without_rewards_it_can_be_imitated(tmp_path: Path) -> None:
    run = learn("bc", tmp_path / "run", logs(tmp_path / "swings.npz", rewards=None), updates=50)
    assert api.load(run.path).card.extra["step"] == 50
    assert not run.conditioned


def test_discrete_data_bring_their_own_spec() -> None:
    actions = (np.arange(102) % 4)[:, None]
    data = swings(actions=actions, about=About("swings", choices=4))
    for config in (BC(), DT(), DS4()):
        spec, found = logged_data.check(type(config).__name__.lower(), config, OfflineSettings(), data)
        assert spec == Spec.discrete(3, 4)
        np.testing.assert_array_equal(found.actions, actions[:, 0])


def test_a_target_outside_the_data_is_warned_of() -> None:
    earned = data_logs.returns(swings())
    low, high = earned.min(), earned.max()
    settings = OfflineSettings(targets=(float(low) - 1, float(low) + 1, 99.5))
    with pytest.warns(LegatoWarning) as warned:
        logged_data.check("dt", DT(), settings, swings())
    said = f"asked for {low - 1:g}, 99.5, outside the returns of the data, {low:g} to {high:g}"
    assert [str(warning.message) for warning in warned] == [said]
    logged_data.check("dt", DT(), OfflineSettings(targets=(float(high),)), swings())


def test_targets_are_in_the_units_of_discounted_returns() -> None:
    data = swings(rewards=np.ones(102))  # 3 to 14, or 1.75 to almost 2
    logged_data.check("dt", DT(gamma=0.5), OfflineSettings(targets=(1.9,)), data)
    with pytest.warns(LegatoWarning, match=r"^asked for 5, outside the returns of the data, 1\.75 to 1\.99"):
        logged_data.check("dt", DT(gamma=0.5), OfflineSettings(targets=(5.0,)), data)
    statistics = dataset_statistics.of(data, Spec(3, (-2.0,), (2.0,)), gamma=0.5)
    assert 1.75 <= float(statistics.target) < 2


def test_a_run_without_returns_is_asked_for_none(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_learnt(monkeypatch, offline, METRICS)
    run = learn("dt", tmp_path / "run", dataset, updates=1, returns=False, env="Pendulum-v1", targets=(1.0, 2.0))
    assert not run.conditioned
    assert list(rows(run)[0]) == ["step", "seed", "eval_return", "gradient_norm", "loss"]


def test_whole_episodes_are_padded_to_the_longest_and_no_further(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_learnt(monkeypatch, offline, METRICS)
    config, settings = override(*preset("cpu", "ds4", dataset), updates=1, length=1000, anneal_over=0)
    data = formats.load(dataset)
    spec, data = logged_data.check("ds4", config, settings, data)
    run = Run.create(tmp_path / "run", "ds4", "cpu", config, settings, spec)
    session = offline.Session(run, unit="update", quiet=True)
    loop = offline.OfflineLoop(session, data)
    assert [(draw.whole, draw.length) for draw in loop.batch_specs] == [(True, 4), (True, 7), (True, 14)]
    assert data.lengths.max() == 14
    session.checkpoints.close()
