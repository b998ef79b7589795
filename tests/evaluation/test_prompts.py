"""Asking for returns: each is asked for, from the same starts, compiled once, kept, read back and shown."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from tests.tiny import WIDE, Diary, Scribe, environments, untrained_on_logs

from legato import api
from legato.cli import main
from legato.data.dataset_statistics import DatasetStatistics
from legato.envs import EnvironmentConfig
from legato.errors import LegatoError, LegatoWarning
from legato.evaluation import compare as comparing
from legato.evaluation import prompts, sweeps
from legato.evaluation.compare import evaluation_of
from legato.evaluation.fas import GRID
from legato.evaluation.normalised import NormalisationScores
from legato.evaluation.prompts import Prompts
from legato.evaluation.statistics import bootstrap
from legato.evaluation.sweeps import Evaluation
from legato.policy import Policy, Step
from legato.rollout import Clock, episode_seed, episodes, stack
from legato.training.run import Run

TRACED: list[Any] = []  # the commands that a policy was compiled with


def statistics(target: float = 20.0, deciles: Any = range(-8, 36, 4)) -> DatasetStatistics:
    """Of data with these deciles of the returns: by default -8, -4, ... 32."""
    none = DatasetStatistics.identity(WIDE)
    new = jnp.asarray(target, jnp.float32), jnp.asarray(list(deciles), jnp.float32)
    return DatasetStatistics(none.normaliser, none.scale, *new, WIDE)


class Obedient(Policy[Any]):
    """Earns `weight x command - 6` in a Diary of four steps: in each, a quarter of the last action, less 0, 1, 2, 3."""

    weight: jax.Array
    statistics: DatasetStatistics

    def init_state(self, command: Any) -> Any:
        TRACED.append(command)
        return self.statistics.target if isinstance(command, tuple) else jnp.asarray(command, jnp.float32)

    def observe(self, state: Any, step: Step) -> Any:
        return state

    def decide(self, state: Any, key: jax.Array | None, length: int) -> tuple[jax.Array, Any]:
        return jnp.zeros((length, 4)).at[:, 3].set(self.weight * state), state


POLICIES = stack([Obedient(jnp.array(w), statistics()) for w in (1.0, 0.5)])


# --- one sweep ---


def test_every_return_is_asked_for() -> None:
    done: list[int] = []
    asked = (-8.0, 4.0, 400.0)
    found = prompts.sweep(
        POLICIES, environments(*(Diary(4) for _ in range(6))), WIDE, [4, 8], asked, Clock(1), on_point=done.append
    )
    assert found.shape == (2, 3, 3)  # seeds, asked, episodes
    assert done == [1, 2, 3]
    np.testing.assert_allclose(found[0], np.repeat([[-14], [-2], [394]], 3, axis=1))
    np.testing.assert_allclose(found[1], np.repeat([[-10], [-4], [194]], 3, axis=1))


def test_each_begins_where_the_others_do() -> None:
    members = [Diary(4) for _ in range(6)]
    prompts.sweep(POLICIES, environments(*members), WIDE, [4, 8], (1.0, 2.0, 3.0), Clock(1))
    for i, member in enumerate(members):
        assert member.seeds == [episode_seed((4, 8)[i // 3], "test", i % 3)] * 3
    assert len({member.seeds[0] for member in members}) == 6


def test_any_number_of_returns_compiles_once() -> None:
    """The returns are integers to the caller and floats to the policy: neither compiles anew."""
    members = [Diary(5), Diary(5)]
    policies = stack([Obedient(jnp.ones(()), statistics())])
    TRACED.clear()
    prompts.sweep(policies, environments(*members), WIDE, [1], (1.0,), Clock(1))
    once = len(TRACED)
    assert once > 0
    prompts.sweep(policies, environments(*members), WIDE, [1], (2.0, 3, np.float32(4)), Clock(1))
    assert len(TRACED) == once
    assert all(isinstance(command, jax.core.Tracer) for command in TRACED)


def test_the_default_target_is_what_no_command_asks_for() -> None:
    members = [Diary(4), Diary(4)]
    found = prompts.sweep(POLICIES, environments(*members), WIDE, [4, 8], (20.0,), Clock(1))
    np.testing.assert_array_equal(
        found[:, 0], episodes(POLICIES, environments(*members), WIDE, Clock(1), [4, 8], "test")
    )


# --- what to ask for ---


def test_deciles_and_the_policys_own_target_are_asked_for() -> None:
    assert prompts.to_ask(statistics(target=20.5)) == (-4.0, 4.0, 12.0, 20.0, 20.5, 28.0, 32.0)
    assert prompts.to_ask(statistics(target=20.0)) == (-4.0, 4.0, 12.0, 20.0, 28.0, 32.0)  # each once
    assert prompts.to_ask(statistics(1.0, [0] * 8 + [1] * 3)) == (0.0, 1.0)
    assert prompts.to_ask(statistics(), ()) == prompts.to_ask(statistics(), None) == prompts.to_ask(statistics())


def test_what_is_named_is_asked_for_in_order_and_once() -> None:
    assert prompts.to_ask(statistics(), (3600, 1800, 3600.0)) == (1800.0, 3600.0)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(LegatoError, match=f"a target return must be finite; {bad} was given"):
            prompts.to_ask(statistics(), (1.0, bad))


def test_the_facts_are_found_wherever_a_policy_keeps_them() -> None:
    known = prompts.statistics_of(Obedient(jnp.ones(()), statistics(7.0)))
    assert float(known.target) == 7.0
    assert prompts.supported_returns(known) == (-8.0, 32.0)
    with pytest.raises(LegatoError, match="a policy of kind Scribe keeps nothing of its data"):
        prompts.statistics_of(Scribe(jnp.ones(())))


def test_a_point_with_its_interval_and_its_support() -> None:
    returns = np.array([[[1.0, 3.0], [0.0, 0.0]], [[5.0, 7.0], [1.0, 1.0]]])
    found = Prompts((2.0, 40.5), returns, 2.0, (2.0, 40.0))
    np.testing.assert_array_equal(found.means, [[2, 0], [6, 1]])
    assert found.at(2.0) == bootstrap([2.0, 6.0])
    assert found.at(40.5).mean == 0.5
    assert [found.supports(x) for x in (1.9, 2.0, 40.0, 40.5)] == [False, True, True, False]
    with pytest.raises(LegatoError, match=r"^a return of 3 was not asked for; the sweep has 2, 40.5$"):
        found.at(3.0)


# --- in an evaluation ---


@pytest.fixture(scope="module", autouse=True)
def diaries() -> Any:
    """Two environments of one shape, one in two versions; episodes of six steps. Sweeps over the clock compile once."""

    def make(render_mode: str | None = None) -> Diary:
        return Diary(limit=6)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweeps, "PLAN_LENGTHS", (32,))
        for name in ("Diary-v0", "Diary-v1", "Other-v0"):
            patched.setitem(gymnasium.registry, name, EnvSpec(name, make))
        yield


KNOWN: dict[str, Any] = {"environment": "Diary-v0", "reference": (-100.0, 100.0)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds of a Decision Transformer with random weights, whose data says where it is from."""
    return untrained_on_logs(
        "dt", tmp_path_factory.mktemp("runs") / "run", statistics=statistics(), data=KNOWN, seeds=2
    )


@pytest.fixture(scope="module")
def evaluation(run: Run) -> Evaluation:
    return api.evaluate(run, episodes=2, clocks=False, quiet=True)


def kept(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "evaluation.json").read_text())


def test_a_conditioned_run_is_asked_for_its_datas_deciles(evaluation: Evaluation, run: Run) -> None:
    assert run.settings.env == ""
    assert (evaluation.environment, evaluation.steps) == ("Diary-v0", (9, 9))
    found = evaluation.prompts
    assert found is not None
    assert found.asked == (-4.0, 4.0, 12.0, 20.0, 28.0, 32.0)
    assert (found.target, found.data) == (20.0, (-8.0, 32.0))
    assert found.returns.shape == (2, 6, 2)
    np.testing.assert_allclose(found.returns[:, 3], evaluation.asl.returns[:, 0], rtol=1e-6)  # asked for its own target
    assert evaluation.asl.x == GRID
    assert evaluation.levels == NormalisationScores(-100.0, 100.0, "the dataset")
    assert evaluation.as_trained == evaluation.asl.at(1)
    assert {p.name for p in (run.path / "figures").iterdir()} >= {"asl-last.png", "prompts-last.png"}


def test_what_is_kept_is_read_back(evaluation: Evaluation, run: Run) -> None:
    found = Evaluation.from_json(kept(run)["last"])
    assert found.to_json() == evaluation.to_json()
    assert found.prompts is not None
    assert evaluation.prompts is not None
    np.testing.assert_array_equal(found.prompts.returns, evaluation.prompts.returns)
    assert found.prompts.asked == evaluation.prompts.asked
    assert (found.prompts.data, found.levels, found.steps) == ((-8.0, 32.0), evaluation.levels, (9, 9))


def test_files_from_before_there_were_prompts_are_read(evaluation: Evaluation) -> None:
    body = json.loads(json.dumps(evaluation.to_json()))
    for name in ("prompts", "levels", "steps", "digest"):
        del body[name]
    found = Evaluation.from_json(body)
    assert (found.prompts, found.levels, found.steps) == (None, None, None)
    np.testing.assert_array_equal(found.asl.returns, evaluation.asl.returns)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.update(prompts={"asked": [1.0]}),
        lambda body: body["prompts"].update(junk=1),
        lambda body: body.update(levels={"random": 1.0}),
        lambda body: body.update(steps=3),
    ],
)
def test_what_is_no_evaluation_is_refused(evaluation: Evaluation, spoil: Any) -> None:
    body = json.loads(json.dumps(evaluation.to_json()))
    spoil(body)
    with pytest.raises(LegatoError, match="this is not an evaluation that legato wrote"):
        Evaluation.from_json(body)


def test_prompts_alone_leave_the_sweeps_of_the_same_policies(evaluation: Evaluation, run: Run) -> None:
    with pytest.warns(LegatoWarning, match="^asked for 1000, outside the returns of the data, -8 to 32$"):
        found = api.evaluate(run, episodes=3, sweep=False, targets=(4.0, 1000.0), quiet=True)
    assert found.prompts is not None
    assert (found.prompts.asked, found.prompts.returns.shape) == ((4.0, 1000.0), (2, 2, 3))
    np.testing.assert_array_equal(found.asl.returns, evaluation.asl.returns)
    assert Evaluation.from_json(kept(run)["last"]).to_json() == found.to_json()


def test_prompts_alone_of_other_policies_stand_alone(evaluation: Evaluation, run: Run) -> None:
    best = api.evaluate(run, which="best", episodes=1, sweep=False, targets=(4.0,), quiet=True)
    assert (best.asl.x, best.intervals, best.fas, best.steps) == ((1,), None, None, (7, 7))
    assert not (run.path / "figures" / "asl-best.png").exists()
    body = kept(run)
    body["last"]["steps"] = [8, 8]  # as after a run that went on
    del body["last"]["digest"]
    (run.path / "evaluation.json").write_text(json.dumps(body))
    assert api.evaluate(run, episodes=1, sweep=False, targets=(4.0,), quiet=True).asl.x == (1,)


def test_comparing_measures_what_prompts_alone_left_out(
    run: Run, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asks for the same returns again."""
    api.evaluate(run, which="best", episodes=1, sweep=False, targets=(4.0,), quiet=True)
    asked = []
    monkeypatch.setattr(comparing, "evaluate", lambda run, **options: asked.append(options))
    evaluation_of(run, "best", quiet=True)
    assert asked == [{"which": "best", "env": EnvironmentConfig("Diary-v0"), "targets": (4.0,), "quiet": True}]


def test_what_reads_no_target_is_not_asked(tmp_path: Path) -> None:
    cloned = untrained_on_logs("bc", tmp_path / "bc", statistics=statistics(), data=KNOWN)
    for options, words in (({"targets": (1.0,)}, "targets"), ({"sweep": False}, r"no-sweep \(in Python sweep=False\)")):
        with pytest.raises(LegatoError, match=rf"bc' \(BC\) read no target return: leave out {words}$"):
            api.evaluate(cloned, quiet=True, **options)
    found = api.evaluate(cloned, episodes=1, clocks=False, quiet=True)
    assert (found.prompts, found.levels) == (None, NormalisationScores(-100.0, 100.0, "the dataset"))
    assert not list((cloned.path / "figures").glob("prompts*"))


# --- where policies belong ---


def test_a_run_without_environment_is_told_where_to_play(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    homeless = untrained_on_logs("dt", tmp_path / "dt", statistics=statistics(), data={"environment": None})
    words = f"neither '{homeless.path}' nor its data names an environment: name one with --env, or measure its "
    words += "predictions of logged actions with evaluate and a dataset"
    for command in ("evaluate", "play", "compare"):
        with pytest.raises(SystemExit):
            main([command, str(homeless.path)])
        assert capsys.readouterr().err == f"error: {words}\n"
    found = api.evaluate(homeless, episodes=1, sweep=False, targets=(4.0,), env="Other-v0", quiet=True)
    assert (found.environment, found.levels) == ("Other-v0", None)
    main(["play", str(homeless.path), "--env", "Other-v0"])
    assert capsys.readouterr().out.startswith("DT on Other-v0: return ")


def test_levels_belong_to_the_environment_of_the_data(run: Run) -> None:
    def scores(env: str) -> NormalisationScores | None:
        return api.evaluate(run, which="best", episodes=1, sweep=False, targets=(4.0,), env=env, quiet=True).levels

    assert scores("Diary-v1") == NormalisationScores(-100.0, 100.0, "the dataset")  # another version
    assert scores("Other-v0") is None


def test_an_environment_of_another_shape_is_refused(run: Run) -> None:
    with pytest.raises(LegatoError, match=r"^'Pendulum-v1' has 3 observed numbers and actions from .*; the policy in"):
        api.evaluate(run, env="Pendulum-v1", quiet=True)


def test_runs_are_compared_where_their_data_is_from(run: Run, tmp_path: Path) -> None:
    other = untrained_on_logs("bc", tmp_path / "bc", data={"environment": "Other-v0"})
    with pytest.raises(LegatoError, match="runs of different environments cannot be compared: Diary-v0, Other-v0"):
        api.compare([run, other], quiet=True)


def test_the_command_asks_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = untrained_on_logs("dt", tmp_path / "dt", statistics=statistics(), data=KNOWN).path
    with warnings.catch_warnings():
        warnings.simplefilter("default", LegatoWarning)
        main(["evaluate", str(path), "--no-sweep", "--targets", "4", "-1000", "--episodes", "1", "--quiet"])
    out, err = capsys.readouterr()
    assert err == "warning: asked for -1000, outside the returns of the data, -8 to 32\n"
    found = Evaluation.from_json(kept(Run(path))["last"])
    assert found.prompts is not None
    assert found.prompts.asked == (-1000.0, 4.0)
    assert f"{found.prompts.at(4.0).mean:.0f}" in out
    assert "not swept" in out
    assert out.splitlines()[-1] == f"kept in {path}/evaluation.json and {path}/figures"
