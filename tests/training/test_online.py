"""Learning by acting: a process that was killed or stopped ends with the numbers of one left alone; seeds do not touch
each other; what cannot be trained is refused before there is a folder. What every loop does is told by `test_loop`.
"""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from safetensors.numpy import load_file
from tests.runs import last_step, load, rows, same_end, saved, stop_when
from tests.tiny import DECISIONS, SAC3, SRL4, TIMES, Diary, flags, nothing_learnt, spawn, train

from legato import api
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl.config import SRL
from legato.cli import main
from legato.data import device_memory
from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning
from legato.rollout import Clock
from legato.training import interruption, online
from legato.training.checkpoint import Checkpoints
from legato.training.run import Run
from legato.training.settings import Settings

# --- killed, stopped, resumed ---


COMMAND = ["train", "sac", "--env", "Pendulum-v1", *flags({**SAC3, **TIMES, **DECISIONS}), "--out"]


def test_a_killed_run_ends_like_one_left_alone(decisions: Run, tmp_path: Path) -> None:
    """SIGKILL some time after the checkpoint of step 200, which lies between two rows of metrics."""
    path = tmp_path / "killed"
    args = [*COMMAND, str(path)]
    code, _ = stop_when(spawn(args, tmp_path), lambda: bool(saved(path)) and last_step(path) >= 300, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert last_step(path) < 600
    online.resume(path, quiet=True)
    same_end(path, decisions.path)


def test_an_interrupted_run_saves_says_so_and_ends_like_one_left_alone(decisions: Run, tmp_path: Path) -> None:
    """As Ctrl-C sends it to a process, between two checkpoints."""
    path, sent = tmp_path / "interrupted", signal.SIGINT
    args = [*COMMAND, str(path), "--quiet"]
    code, errors = stop_when(spawn(args, tmp_path), lambda: last_step(path) >= 150, sent)
    assert code == 128 + sent
    step = saved(path)[-1]
    assert 150 <= step < 600
    assert errors == f"stopped at step {step}; continue with: legato train --resume {path}\n"
    online.resume(path, quiet=True)
    same_end(path, decisions.path)


def test_decisions_seeds_and_environments_resume_too(decisions: Run, tmp_path: Path) -> None:
    """Where decisions are held."""
    older = saved(decisions.path)[0]
    _, state = load(decisions.path, older)
    assert older < 600 and np.abs(state["loop"]["held_decisions"]).max() > 0
    shutil.copytree(decisions.path, tmp_path / "back")
    online.resume(tmp_path / "back", older, quiet=True)
    same_end(tmp_path / "back", decisions.path)


@pytest.mark.parametrize(("setting", "value"), [("environments", 3), ("seeds", 2)])
def test_a_checkpoint_of_other_seeds_or_environments_is_refused(
    unbroken: Run, tmp_path: Path, setting: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before as many environments are made."""
    path = tmp_path / "edited"
    shutil.copytree(unbroken.path, path)
    body = json.loads((path / "config.json").read_text())
    body["settings"][setting] = value
    del body["digests"]
    (path / "config.json").write_text(json.dumps(body))
    monkeypatch.setattr(online, "make_vec", lambda *args: pytest.fail("environments were made"))
    with pytest.raises(LegatoError, match=r"checkpoints' holds no checkpoint of this run \(it has 1 seeds"):
        online.resume(path, quiet=True)


def test_a_checkpoint_of_another_kind_of_run_is_refused(unbroken: Run, tmp_path: Path) -> None:
    path = tmp_path / "other"
    shutil.copytree(unbroken.path, path)
    shutil.rmtree(path / "checkpoints")
    checkpoints = Checkpoints(path / "checkpoints")
    checkpoints.save(600, {"loop": {"best": np.zeros(1)}})
    checkpoints.close()
    with pytest.raises(LegatoError, match=r"holds no checkpoint of this run \('rollout'\)"):
        online.resume(path, quiet=True)


def test_an_environment_that_does_not_repeat_itself_goes_on_with_fresh_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"limit": 30, "spec": Spec(3, (-2.0,), (2.0,)), "noise": itertools.count()}
    spec = EnvSpec("Noisy-v0", Diary, kwargs=options, disable_env_checker=True)
    monkeypatch.setitem(gymnasium.registry, "Noisy-v0", spec)
    times = {"steps": 204, "eval_every": 100, "checkpoint_every": 100}
    run = train("sac", tmp_path / "run", "Noisy-v0", **{**DECISIONS, **times})
    body = json.loads((run.path / "config.json").read_text())
    body["settings"]["steps"] = 300
    del body["digests"]
    (run.path / "config.json").write_text(json.dumps(body))
    before = (run.path / "metrics.csv").read_bytes()
    with pytest.raises(LegatoError, match=r"it is not deterministic, .*`fresh_episodes` goes on with new ones"):
        api.train(resume=run.path, quiet=True)
    assert (run.path / "metrics.csv").read_bytes() == before
    with warnings.catch_warnings():
        warnings.simplefilter("default", LegatoWarning)
        main(["train", "--resume", str(run.path), "--fresh-episodes", "--quiet"])
    assert "goes on with fresh episodes from step 204: its numbers differ" in capsys.readouterr().err
    assert last_step(run.path) == 300
    assert (run.path / "metrics.csv").read_bytes().startswith(before)
    assert json.loads((run.path / "config.json").read_text())["resumed_with_fresh_episodes"] == [204]
    assert Run(run.path).settings.steps == 300  # the note is no change of what was asked


@pytest.mark.parametrize("options", [{"capacity": 10**6, "steps": 10**6}, {"seeds": 50}])
def test_a_replay_larger_than_memory_is_refused_before_the_folder_is_made(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "available", lambda: 100_000)
    with pytest.raises(LegatoError, match=r"^a replay of \d+ transitions of 40 bytes.* takes .* lower `capacity`"):
        train("sac", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    assert device_memory.available() == 100_000


def test_learners_larger_than_memory_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of one seed fits, and those of all seeds do not."""
    pool = {"members": 2, "elites": 1, "model_hidden": (8,), "rollouts": 1_000, "hidden": 8, "batch_size": 8}
    monkeypatch.setattr(device_memory, "available", lambda: 100_000)
    with pytest.raises(LegatoError, match=r"^what 3 seeds learn and keep takes .* lower `seeds`"):
        api.train("mbpo", "Pendulum-v1", out=tmp_path / "run", **pool, seeds=3, capacity=100, steps=200, quiet=True)


def test_the_memory_is_at_most_what_a_process_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**28 < device_memory.available() < 2**50
    monkeypatch.setattr(resource, "getrlimit", lambda what: (2**20, 2**20))
    assert device_memory.available() == 2**20


def test_handlers_are_those_of_before_and_hear_what_came_too_late() -> None:
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        own = {number: signal.getsignal(number) for number in interruption.SIGNALS}
        with interruption.interruptible() as asked:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
            assert asked() is None
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]  # nobody asked for it
        with interruption.interruptible() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert asked() == signal.SIGTERM
        assert heard == [signal.SIGTERM]
        assert {number: signal.getsignal(number) for number in interruption.SIGNALS} == own
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.usefixtures("x64")
def test_double_precision_elsewhere_in_a_program_changes_nothing(unbroken: Run, tmp_path: Path) -> None:
    """`jax_enable_x64` is on when a run is gone on with, read and played."""
    shutil.copytree(unbroken.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "600")
    same_end(api.train(resume=tmp_path / "run", quiet=True).path, unbroken.path)
    with jax.enable_x64(False):
        player = api.load(unbroken.path)
        memory = player.begin()
        expected, carried = player.act(memory, np.ones(3), 4)
        played = api.collect(unbroken, 10, quiet=True)
    for other in (player, api.load(unbroken.path)):  # compiled before, and now
        assert other.begin().state[0].dtype == np.float32
        actions, after = other.act(memory, np.ones(3), 4)
        np.testing.assert_array_equal(actions, expected)
        jax.tree.map(np.testing.assert_array_equal, after, carried)
    np.testing.assert_array_equal(api.collect(unbroken, 10, quiet=True).actions, played.actions)
    assert jax.config.jax_enable_x64  # type: ignore[attr-defined]


# --- what a run leaves behind ---


def test_metrics_have_a_row_per_seed_and_interval(unbroken: Run, decisions: Run) -> None:
    found = rows(unbroken)
    assert [int(row["step"]) for row in found] == [152, 300, 452, 600]  # the ends of turns of 4 steps
    assert {row["seed"] for row in found} == {"0"}
    assert [row["eval_return"] != "" for row in found] == [False, True, False, True]
    assert [(row["episodes"], row["length"]) for row in found] == [("0", "")] + [("1", "200.0")] * 3
    losses = ("critic_loss", "actor_loss", "model_loss", "ends_loss", "q", "entropy", "alpha")
    assert all(np.isfinite(float(row[name])) for row in found for name in losses)
    assert set(found[0]) == {"step", "seed", "return", "length", "episodes", "eval_return", *losses}
    steps = [(row["step"], row["seed"], row["episodes"]) for row in rows(decisions)]
    assert steps == [
        (step, seed, "2" if step == "450" else "0") for step in ("150", "300", "450", "600") for seed in "56"
    ]


def test_the_best_policy_is_the_one_that_evaluated_best(unbroken: Run) -> None:
    evaluated = {int(row["step"]): float(row["eval_return"]) for row in rows(unbroken) if row["eval_return"]}
    best, last = (api.load(unbroken.path, which=which) for which in ("best", "last"))
    assert best.card.extra["step"] == max(evaluated, key=lambda step: evaluated[step])
    assert last.card.extra == {
        "environment": "Pendulum-v1",
        "seed": 0,
        "step": 600,
        "run": "unbroken",
        "which": "last",
    }
    assert best.card.extra["which"] == "best"


def test_only_the_newest_checkpoints_are_kept(unbroken: Run) -> None:
    assert saved(unbroken.path) == [400, 600]


@pytest.mark.parametrize(
    ("algorithm", "plan", "learned", "hold"), [("srl", 4, "ActionSequence", False), ("sac", 3, "HeldAction", True)]
)
def test_random_plans_come_first_then_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, plan: int, learned: str, hold: bool
) -> None:
    asked = []
    run = online.Rollout.run

    def listen(self: online.Rollout, policies: Any, steps: int, keys: Any) -> Any:
        asked.append((type(policies).__name__, getattr(policies, "hold", None), steps, self.clock))
        return run(self, policies, steps, keys)

    monkeypatch.setattr(online.Rollout, "run", listen)
    nothing_learnt(monkeypatch, online)
    whole = {"execute": 0} if algorithm == "srl" else {}
    train(algorithm, tmp_path / "run", steps=24, start_steps=11, **whole)
    assert asked[: len(asked) // 2] == [("RandomPlans", hold, plan, Clock(plan))] * (12 // plan)
    assert asked[len(asked) // 2 :] == [(learned, None, plan, Clock(plan))] * (12 // plan)


def test_a_part_of_a_plan_may_be_executed_while_collecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four actions, one update for each; evaluations play all four."""
    asked, played = [], []
    run, measure = online.Rollout.run, online.episodes
    monkeypatch.setattr(
        online.Rollout,
        "run",
        lambda self, p, steps, keys: asked.append((steps, self.clock)) or run(self, p, steps, keys),
    )
    monkeypatch.setattr(online, "episodes", lambda *args, **more: played.append(args[3]) or measure(*args, **more))
    nothing_learnt(monkeypatch, online)
    found = train("srl", tmp_path / "run", steps=24, start_steps=11, eval_every=24, execute=2, batch_size=4)
    assert set(asked[:12]) == {(2, Clock(2))} and set(played) == {Clock(4)}
    assert int(load(found.path)[1]["loop"]["updates"]) == 24 - 2  # with the first two steps there is no minibatch


def test_learning_from_stretches_resumes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Critics, model, ends and encoder that read sequences, of two environments; a random number of steps of each plan
    is executed, and turns stay as long as a plan.
    """
    asked, run = [], online.Rollout.run
    monkeypatch.setattr(
        online.Rollout,
        "run",
        lambda self, p, steps, keys: asked.append((steps, self.clock)) or run(self, p, steps, keys),
    )
    options = {"critic": "time_aware", "latent": 4, "predict_terminations": True, "execute": -1}
    times = {"steps": 304, "checkpoint_every": 152, "eval_every": 304, "log_every": 152}
    whole = train("srl", tmp_path / "whole", environments=2, **times, **options)
    assert asked[:38] == [(4, Clock((1, 4)))] * 38
    shutil.copytree(whole.path, tmp_path / "again")
    again = online.resume(tmp_path / "again", from_step=152, quiet=True)
    same_end(again.path, whole.path)


def test_learning_begins_with_the_first_whole_minibatch(unbroken: Run, decisions: Run) -> None:
    """16 transitions: of single steps, four a turn; of decisions, two a turn (one of each environment). The 300 steps
    of each environment hold 67 decisions in the first episode, the last cut short by its end, and 33 in the second.
    """
    found = []
    for run in (unbroken, decisions):
        step, state = load(run.path)
        loop = state["loop"]
        found.append((step, int(loop["updates"]), loop["stored"].tolist()))
    assert found == [(600, 4 * (150 - 3), [600]), (600, 2 * (100 - 7), [200, 200])]


@pytest.mark.parametrize(
    ("config", "settings", "turn"),
    [
        (SRL(horizon=8), {}, (8, 8)),
        (SRL(horizon=8), {"updates_per_step": 0.25, "environments": 3}, (24, 6)),
        (SRL(horizon=1), {"updates_per_step": 2.0}, (1, 2)),
        (SAC(action_repeat=4), {}, (4, 4)),
        (SAC(action_repeat=4, updates="decision"), {}, (4, 1)),
        (SAC(action_repeat=4, updates="decision"), {"environments": 3, "updates_per_step": 2.0}, (12, 6)),
    ],
)
def test_updates_are_counted_per_step_or_per_decision(
    config: SRL | SAC, settings: dict[str, Any], turn: tuple[int, int]
) -> None:
    name = "srl" if isinstance(config, SRL) else "sac"
    assert online.turn(name, config, Settings(env="Pendulum-v1", **settings)) == turn


# --- several seeds ---


@pytest.mark.parametrize(
    ("algorithm", "options", "updates"),
    [
        ("srl", {}, 96),
        ("srl", {"updates_per_step": 0.5, "environments": 2}, 48),
        ("sac", {"updates": "decision"}, 32),
        ("sac", {"updates": "step", "anneal_over": 7}, 7),
    ],
)
def test_annealing_over_the_whole_run_is_over_its_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, options: dict[str, Any], updates: int
) -> None:
    learnt_with = nothing_learnt(monkeypatch, online)
    given = {**(SRL4 if algorithm == "srl" else SAC3), "steps": 96, "anneal_over": -1, **options}
    run = api.train(algorithm, "Pendulum-v1", out=tmp_path / "run", quiet=True, **given)
    assert {config.anneal_over for config in learnt_with} == {updates}
    assert Run(run.path).config.anneal_over == updates  # in config.json too: a resumed run anneals as before


def test_annealing_changes_what_is_learnt(tmp_path: Path) -> None:
    weights = []
    for over in (0, 1):
        run = train("sac", tmp_path / str(over), **{**DECISIONS, "seed": 0, "steps": 180, "anneal_over": over})
        weights.append(load_file(run.policy_path(0) / "weights.safetensors"))
    before, after = ({name: np.asarray(value) for name, value in w.items()} for w in weights)
    assert all(np.abs(before[name] - after[name]).max() > 0 for name in before)


def test_seeds_trained_together_are_the_seeds_trained_alone(tmp_path: Path) -> None:
    """After 40 updates of SAC-3, and acting on what they taught. To 1e-5, not to the bit: a product of stacked
    matrices may add in another order than a single one. Weights move by 1e-2 meanwhile, and those of different seeds
    are further apart still.
    """
    options = {"updates": "decision", "environments": 2, "steps": 160, "start_steps": 80, "log_every": 160}
    together = train("sac", tmp_path / "together", seed=5, seeds=2, **options)
    weights = []
    for seed in (5, 6):
        alone = train("sac", tmp_path / f"alone-{seed}", seed=seed, **options)
        one, other = (load_file(run.policy_path(seed) / "weights.safetensors") for run in (together, alone))
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-5, err_msg=name)
        weights.append(other)
        pair = [[row for row in rows(run) if row["seed"] == str(seed)][-1] for run in (together, alone)]
        for name, number in pair[0].items():
            assert float(number or 0) == pytest.approx(float(pair[1][name] or 0), rel=1e-4, abs=1e-4), name
    assert all(np.abs(weights[0][name] - weights[1][name]).max() > 1e-3 for name in weights[0])


# --- refused before there is a folder ---


@pytest.mark.parametrize(
    ("algorithm", "env", "options", "words"),
    [
        ("srl", "Pendulum-v1", {"horizon": 0}, "horizon must be at least 1; 0 was given"),
        ("srl", "Pendulum-v1", {"horizon": 201}, "a plan of 201 steps is longer than an episode of 'Pendulum-v1'"),
        ("sac", "Pendulum-v1", {"action_repeat": 300}, "a plan of 300 steps is longer than an episode"),
        ("srl", "Pendulum-v1", {"n_step": 201}, "n_step 201 is longer than an episode of 'Pendulum-v1' (200 steps)"),
        ("srl", "Pendulum-v1", {"capacity": 10}, "capacity 10 is smaller than a minibatch (16)"),
        ("srl", "Pendulum-v1", {"updates_per_step": 0.1}, "updates_per_step 0.1 gives no update in 4 steps"),
        ("srl", "Pendulum-v1", {"batch_size": 0}, "batch_size must be at least 1; 0 was given"),
        ("srl", "Pendulum-v1", {"steps": 0}, "steps must be at least 1; 0 was given"),
        ("srl", "Hoper-v5", {}, "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?"),
        ("srl", "CartPole-v1", {}, "discrete actions of 'CartPole-v1' are not supported by srl"),
        ("sac", "FrozenLake-v1", {}, "discrete observations of 'FrozenLake-v1' are not supported; wrap it in"),
        ("slr", "Pendulum-v1", {}, "unknown algorithm 'slr'; did you mean 'srl'?"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_folder(
    tmp_path: Path, algorithm: str, env: str, options: dict[str, Any], words: str
) -> None:
    sizes = {"srl": SRL4, "slr": SRL4, "sac": SAC3}[algorithm]
    with pytest.raises(LegatoError) as problem:
        api.train(algorithm, env, out=tmp_path / "run", **{**sizes, **TIMES, **options})
    assert str(problem.value).startswith(words)
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_not_installed_is_refused_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    monkeypatch.delitem(__import__("sys").modules, "envpool.registration", raising=False)
    with pytest.raises(LegatoError, match="EnvPool is not installed"):
        train("srl", tmp_path / "run", backend="envpool")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(unbroken: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(unbroken.path, path)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(LegatoError, match="exists and is not overwritten"):
        train("srl", path)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_resumed_run_takes_no_options(unbroken: Run) -> None:
    for extra in ({"algorithm": "srl"}, {"out": "x"}, {"horizon": 8}):
        with pytest.raises(LegatoError, match="give only `resume`"):
            api.train(resume=unbroken.path, **extra)  # type: ignore[arg-type]
    with pytest.raises(LegatoError, match="leave out `dataset`"):
        api.train(resume=unbroken.path, dataset="x")
    with pytest.raises(LegatoError, match="needs an algorithm and an environment"):
        api.train("srl")


def test_a_horizon_may_fill_an_episode() -> None:
    """`check` alone, which is all that stands before training."""
    spec = online.check("srl", SRL(horizon=200), Settings(env="Pendulum-v1"))
    assert json.dumps(spec.low) == "[-2.0]"
    online.check("sac", SAC(action_repeat=200), Settings(env="Pendulum-v1"))
