"""Policies that say when they decide again: measured, kept, printed, played and collected with so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import untrained

import legato
from legato import api
from legato.cli import main
from legato.envs import make_vec
from legato.errors import LegatoError
from legato.evaluation import report
from legato.evaluation.statistics import bootstrap
from legato.evaluation.sweeps import Evaluation
from legato.rollout import Clock, Rollout, stack
from legato.training import policy_file
from legato.training.clocks import clock_of
from legato.training.run import Run

STEPS, EPISODES = 20, 2
CLOCK = Clock((1, 4), by="policy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds whose skips differ from state to state."""
    found = untrained("temporl", tmp_path_factory.mktemp("runs") / "run", seeds=2, seed=3, max_episode_steps=STEPS)
    for seed in found.seeds:
        folder = found.policy_path(seed, "last")
        player = policy_file.load(folder)
        loud = jax.tree.map(lambda leaf: jnp.asarray(3 * np.asarray(leaf)), player.policy.skip)
        policy_file.save(folder, eqx.tree_at(lambda policy: policy.skip, player.policy, loud), player.card)
    return found


@pytest.fixture(scope="module")
def evaluation(run: Run) -> Evaluation:
    return api.evaluate(run, episodes=EPISODES, clocks=False, quiet=True)


def test_it_is_what_a_rollout_by_the_policys_own_intervals_earns(evaluation: Evaluation, run: Run) -> None:
    policies = stack([legato.load(run.path, seed).policy for seed in run.seeds])
    environments = make_vec(run.environment_config, 2 * EPISODES)
    experience, ended = Rollout(environments, run.spec, CLOCK, run.seeds, "test", once=True).run(policies, STEPS, None)
    environments.close()
    begins = experience.plan_begins.sum(axis=0).reshape(2, EPISODES)
    own = evaluation.own
    assert own is not None and own.bounds == (1, 4) and len(ended) == 2 * EPISODES
    np.testing.assert_array_equal(own.decisions, begins)
    np.testing.assert_allclose(own.returns, experience.reward.sum(axis=0).reshape(2, EPISODES), rtol=1e-5)
    gaps = np.diff(np.flatnonzero(np.append(experience.plan_begins[:, 0], True)))
    assert len(set(gaps[:-1])) > 1 and gaps.max() <= 4
    assert evaluation.as_trained == own.mean_return == bootstrap(own.returns.mean(axis=1))
    assert own.decisions_per_episode.mean == pytest.approx(begins.mean())


def test_it_is_kept_and_older_files_are_read_without_it(evaluation: Evaluation, run: Run) -> None:
    body = json.loads((run.path / "evaluation.json").read_text())["last"]
    again = Evaluation.from_json(body)
    assert again.to_json() == evaluation.to_json() and again.own is not None
    older = {name: value for name, value in body.items() if name not in ("own", "digest")}
    assert Evaluation.from_json(older).own is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decisions": [[1.0, 2.0]]}, r"own.decisions has shape \[1, 2\], expected \[2 seeds, episodes\]"),
        ({"returns": [[1.0], [2.0]]}, r"own.decisions has shape"),
        ({"decisions": [[0.0, 2.0], [1.0, 1.0]]}, "own.decisions must lie between 1 and"),
        ({"bounds": [0, 4]}, "own.bounds must lie between 1 and 4; 0 was given"),
        ({"bounds": [5, 4]}, "own.bounds"),
    ],
)
def test_numbers_that_do_not_belong_together_are_refused(evaluation: Evaluation, change: Any, words: str) -> None:
    body = evaluation.to_json()
    del body["digest"]
    with pytest.raises(LegatoError, match=words):
        Evaluation.from_json({**body, "own": {**body["own"], **change}})


def test_the_report_prints_it_of_those_that_have_it(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    report.show([evaluation])
    shown = capsys.readouterr().out
    assert evaluation.own is not None
    assert "policies that say when they decide" in shown and "1 to 4 steps" in shown
    assert f"{evaluation.own.decisions.mean():.1f} [" in shown
    without = Evaluation.from_json({**evaluation.to_json(), "own": None, "digest": None})
    report.show([without])
    assert "when they decide" not in capsys.readouterr().out


def test_a_policy_is_played_and_collected_with_when_it_says_unless_told_otherwise(
    evaluation: Evaluation, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation.own is not None
    by_policy = api.play(run)
    assert by_policy.decisions == evaluation.own.decisions[0, 0]
    assert by_policy.mean_return == pytest.approx(evaluation.own.returns[0, 0], rel=1e-5)
    assert api.play(run, every="policy") == by_policy != api.play(run, every=5)
    main(["play", str(run.path), "--every", "policy"])
    main(["play", str(run.path), "--every", "5"])
    said = [line.rpartition("with ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"{by_policy.decisions} decisions", "4 decisions"]
    data, other = (api.collect(run, STEPS, every=every, greedy=True, quiet=True) for every in (None, 5))
    begun = np.flatnonzero(np.diff(data.actions[:, 0]) != 0)
    assert len(begun) > 3 and np.diff(begun).max() <= 4 and (np.diff(other.actions[:, 0])[[3, 8, 13, 18]] == 0).all()
    words = ["--out", str(tmp_path / "logs.npz"), "--steps", "9", "--every", "policy", "--quiet"]
    main(["collect", str(run.path), *words])
    assert "9 steps" in capsys.readouterr().out


def test_a_control_loop_is_told_for_how_long(run: Run) -> None:
    """Whoever plays so many actions of each plan earns what a rollout earns."""
    policy, environment = legato.load(run.path), make_vec(run.environment_config, 1)
    (seen,), decisions, t = api_start(environment, run), 0, 0
    memory, at = policy.begin(), np.array([0])
    while t < STEPS:
        actions, memory = policy.act(memory, seen, length=4)
        decisions += 1
        for action in actions[: policy.interval(memory)]:
            (seen,), _, _, _ = environment.step(at, action[None])
            t += 1
            if t == STEPS:
                break
    assert decisions == api.play(run).decisions
    environment.close()


def api_start(environment: Any, run: Run) -> np.ndarray:
    from legato.rollout import episode_seed

    return environment.reset(np.array([0]), np.array([episode_seed(run.seeds[0], "test", 0)]))


def test_policies_that_do_not_say_are_refused_in_one_line(tmp_path: Path) -> None:
    other = untrained("td3", tmp_path / "run", max_episode_steps=STEPS)
    words = "policies of td3 do not say when they decide again: let `every` be a number of steps"
    for play in (lambda: api.play(other, every="policy"), lambda: api.collect(other, 5, every="policy", quiet=True)):
        with pytest.raises(LegatoError) as problem:
            play()
        assert str(problem.value) == words
    assert legato.load(other.path).interval(legato.load(other.path).begin()) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("play RUN --every soon", "--every takes a whole number or 'policy'; 'soon' was given"),
        ("play RUN --delay 2", "a delay of 2 steps does not fit decisions every 1"),
        ("collect RUN --out new.npz --steps 5 --random --every policy", "random actions do not say when"),
    ],
)
def test_what_cannot_be_played_so_is_refused(
    run: Run, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words.replace("RUN", str(run.path)).split())
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_decision_for_longer_than_any_evaluation_is_refused() -> None:
    with pytest.raises(LegatoError, match="a decision for 100001 steps is not made: `every` is at most 100000"):
        clock_of("td3", None, 100_001)
    assert clock_of("td3", None, 100_000).plan_length == 100_000
