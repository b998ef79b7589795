"""Sweeps over the clock: paired, complete, kept and read back; FAS is that of the stored returns."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from tests.tiny import WIDE, Diary, Scribe, environments, untrained

from legato import api
from legato.errors import LegatoError
from legato.evaluation import compare as comparing
from legato.evaluation import evaluate as evaluating
from legato.evaluation.compare import evaluation_of
from legato.evaluation.fas import GRID, FASReference, fas, reference
from legato.evaluation.latency import Latency
from legato.evaluation.statistics import bootstrap
from legato.evaluation.sweep_figures import draw
from legato.evaluation.sweeps import INTERVALS, Evaluation, Sweep, asl_clock, delays, interval_clock, sweep
from legato.rollout import Clock, episode_seed, episodes, stack
from legato.training.run import Run

POLICIES = stack([Scribe(jnp.ones(())), Scribe(jnp.array(-1.0))])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds of an actor with random weights."""
    return untrained("srl", tmp_path_factory.mktemp("runs") / "run", seeds=2, seed=3)


@pytest.fixture(scope="module")
def evaluation(run: Run) -> Evaluation:
    return api.evaluate(run, episodes=2, quiet=True)


def kept(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "evaluation.json").read_text())


# --- one sweep ---


def test_a_sweep_is_its_points_measured_one_by_one() -> None:
    members = [Diary(limit=9), Diary(dies=7), Diary(limit=12), Diary(limit=5)]
    done: list[int] = []
    x = (1, 3, 4, 6)
    found = sweep(POLICIES, environments(*members), WIDE, [4, 8], x, asl_clock, on_point=done.append)
    assert found.x == x
    assert found.returns.shape == (2, 4, 2)  # seeds, points, episodes
    assert done == [1, 2, 3, 4]
    for i, n in enumerate(x):
        alone = episodes(POLICIES, environments(*members), WIDE, Clock(n), [4, 8], "test")
        np.testing.assert_array_equal(found.returns[:, i], alone)
    np.testing.assert_array_equal(found.means, found.returns.mean(-1))


def test_points_are_paired_by_the_same_test_episodes() -> None:
    members = [Diary(limit=4) for _ in range(6)]
    sweep(POLICIES, environments(*members), WIDE, [4, 8], (1, 2, 5), asl_clock)
    for i, member in enumerate(members):
        assert member.seeds == [episode_seed((4, 8)[i // 3], "test", i % 3)] * 3
    assert len({member.seeds[0] for member in members}) == 6


def test_the_clocks_of_the_sweeps() -> None:
    assert asl_clock(6) == Clock(6)
    assert interval_clock(6) == Clock((1, 6))
    assert INTERVALS == (1, 2, 4, 8, 16, 30)
    assert delays(1) == (0, 1)
    assert delays(8) == (0, 1, 2, 3, 4, 6, 8)
    for every in (1, 4, 5, 32, 50):
        found = delays(every)
        assert found[0] == 0
        assert list(found) == sorted(set(found))
        assert [Clock(every, d) for d in found]  # each can be kept


def test_a_point_with_its_interval() -> None:
    returns = np.array([[[1.0, 3.0], [0.0, 0.0]], [[5.0, 7.0], [1.0, 1.0]]])
    found = Sweep((2, 4), returns)
    np.testing.assert_array_equal(found.means, [[2, 0], [6, 1]])
    assert found.at(2) == bootstrap([2.0, 6.0])
    assert found.at(4).mean == 0.5
    with pytest.raises(LegatoError, match=r"^3 was not measured; the sweep has 2, 4$"):
        found.at(3)


# --- an evaluation ---


def test_everything_is_measured_and_named(evaluation: Evaluation, run: Run) -> None:
    assert (evaluation.label, evaluation.environment, evaluation.which) == ("SRL-4", "Pendulum-v1", "last")
    assert (evaluation.seeds, evaluation.trained_length) == ((3, 4), 4)
    assert evaluation.step_seconds == pytest.approx(0.05)
    assert evaluation.asl.x == GRID
    assert evaluation.asl.returns.shape == (2, 16, 2)
    assert evaluation.intervals is not None
    assert evaluation.intervals.x == INTERVALS
    assert evaluation.intervals.returns.shape == (2, 6, 2)
    assert evaluation.delay is not None
    assert evaluation.delay.x == (0, 1, 2, 3, 4)
    assert evaluation.delay.returns.shape == (2, 5, 2)
    assert evaluation.latency is not None
    assert evaluation.latency_single is not None
    assert (evaluation.latency.length, evaluation.latency_single.length) == (4, 1)
    assert evaluation.reference == reference("Pendulum-v1")
    assert {p.name for p in (run.path / "figures").iterdir()} == {
        *("asl-last.png", "intervals-last.png", "delay-last.png"),
    }


def test_sweeps_meet_where_their_clocks_do(evaluation: Evaluation) -> None:
    """Every step is an interval of 1 to 1; every 4th step without delay is the length it was trained with."""
    assert evaluation.intervals is not None
    assert evaluation.delay is not None
    asl = dict(zip(evaluation.asl.x, evaluation.asl.returns.swapaxes(0, 1), strict=True))
    np.testing.assert_allclose(evaluation.intervals.returns[:, 0], asl[1], rtol=1e-6)
    np.testing.assert_allclose(evaluation.delay.returns[:, 0], asl[4], rtol=1e-6)
    points = [*asl.values(), *evaluation.intervals.returns.swapaxes(0, 1)[1:]]
    assert len(np.unique(np.array(points))) > 60  # and differ elsewhere


def test_the_kept_fas_is_that_of_the_kept_returns(evaluation: Evaluation, run: Run) -> None:
    body = kept(run)["last"]
    returns = np.array(body["asl"]["returns"])
    scale = body["reference"]
    per_seed = fas(returns.mean(-1), scale["max_return"], scale["offset"])
    np.testing.assert_array_equal(body["fas"]["per_seed"], per_seed)
    assert body["fas"]["mean"] == per_seed.mean()
    assert (body["fas"]["low"], body["fas"]["high"]) == (per_seed.min(), per_seed.max())  # of two seeds
    assert evaluation.fas == bootstrap(per_seed)


def test_what_is_kept_is_read_back(evaluation: Evaluation, run: Run) -> None:
    for body in (kept(run)["last"], json.loads(json.dumps(evaluation.to_json()))):
        found = Evaluation.from_json(body)
        assert found.to_json() == evaluation.to_json()
        np.testing.assert_array_equal(found.asl.returns, evaluation.asl.returns)
        assert (found.seeds, found.asl.x, found.reference, found.latency) == (
            evaluation.seeds,
            evaluation.asl.x,
            evaluation.reference,
            evaluation.latency,
        )
    again = evaluation_of(run, quiet=True)  # from the file: latencies, which never repeat, are the same
    assert again.to_json() == evaluation.to_json()


def test_last_and_best_are_kept_side_by_side(evaluation: Evaluation, run: Run) -> None:
    best = api.evaluate(run, which="best", episodes=2, clocks=False, quiet=True)
    assert (best.which, best.intervals, best.delay) == ("best", None, None)
    np.testing.assert_array_equal(best.asl.returns, evaluation.asl.returns)  # the same weights
    assert set(kept(run)) == {"last", "best"}
    assert kept(run)["last"] == json.loads(json.dumps(evaluation.to_json()))
    assert Evaluation.from_json(kept(run)["best"]).to_json() == best.to_json()


@pytest.fixture
def unknown_world(monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment of which no paper has told a scale; episodes of six steps."""
    monkeypatch.setitem(gymnasium.registry, "Diary-v0", EnvSpec("Diary-v0", Diary, kwargs={"limit": 6}))
    return "Diary-v0"


def test_a_world_without_reference_has_no_fas_until_one_is_given(
    unknown_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a known optimum, until it tells one."""
    run = untrained("sac", tmp_path / "run", unknown_world)
    found = api.evaluate(run, episodes=1, clocks=False, quiet=True)
    assert (found.reference, found.fas, found.fas_per_seed, found.step_seconds) == (None, None, None, None)
    assert kept(run)["last"]["fas"] is None
    assert (found.optimum, found.optimum_at(1)) == (None, None)
    assert Evaluation.from_json(kept(run)["last"]).to_json() == found.to_json()
    monkeypatch.setattr(Diary, "known_return", lambda self, steps: 40.0 - steps, raising=False)
    scaled = api.evaluate(run, episodes=1, clocks=False, quiet=True, max_return=50.0, offset=7.0)
    assert scaled.optimum == tuple(40.0 - n for n in GRID)
    assert (scaled.optimum_at(4), scaled.optimum_at(5)) == (36.0, None)
    assert Evaluation.from_json(kept(run)["last"]).optimum == scaled.optimum
    for evaluations, lines in (([found], 0), ([scaled], 1), ([found, scaled], 1)):
        text = draw(evaluations, tmp_path / "a.svg").read_text()
        assert text.count('id="optimum"') == text.count("<!-- known optimum -->") == lines
    for wrong in ((1.0,), (1e200, *GRID[1:])):
        body = {**scaled.to_json(), "optimum": wrong}
        del body["digest"]
        with pytest.raises(LegatoError, match="optimum"):
            Evaluation.from_json(body)
    assert scaled.reference == FASReference(50.0, 7.0)
    np.testing.assert_array_equal(scaled.fas_per_seed, fas(found.asl.means, 50.0, 7.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 0}, "an evaluation needs at least one episode; 0 was given"),
        ({"max_return": 0.0}, "max_return must be positive; 0.0 was given"),
        ({"max_return": -5.0}, "max_return must be positive; -5.0 was given"),
        ({"max_return": float("nan")}, "max_return must be positive; nan was given"),
        ({"max_return": float("inf")}, "max_return must lie between 1e-100 and 1e+100; inf was given"),
        ({"offset": float("nan")}, "offset must be finite, at most 1e+100; nan was given"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_it_is_measured(
    run: Run, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "make_vec", lambda *args: pytest.fail("it was measured"))
    with pytest.raises(LegatoError) as problem:
        api.evaluate(run, quiet=True, **options)
    assert str(problem.value) == words


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_file_that_cannot_be_added_to_is_refused_and_kept(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained("sac", tmp_path / "run")
    (run.path / "evaluation.json").write_bytes(content)
    monkeypatch.setattr(evaluating, "make_vec", lambda *args: pytest.fail("it was measured"))
    with pytest.raises(LegatoError, match=r"evaluation.json' cannot be read .*; move it away to evaluate anew"):
        api.evaluate(run, quiet=True)
    with pytest.raises(LegatoError, match="cannot be read"):
        evaluation_of(run, quiet=True)
    assert (run.path / "evaluation.json").read_bytes() == content


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.pop("asl"),
        lambda body: body.pop("label"),
        lambda body: body.update(junk=1),
        lambda body: body.update(asl={"x": [1, 2]}),
        lambda body: body.update(asl={"x": [1], "returns": [["a"]]}),
        lambda body: body.update(asl=[1, 2]),
        lambda body: body.update(seeds=3),
        lambda body: body.update(latency={"p50": 1.0}),
        lambda body: body.update(label=3),
        lambda body: body.update(seeds=[0, 1, 2]),
        lambda body: body.update(seeds=[]),
        lambda body: body.update(trained_length="4"),
        lambda body: body.update(trained_length=0),
        lambda body: body.update(step_seconds=0.0),
        lambda body: body["asl"].update(x=body["asl"]["x"][:-1]),
        lambda body: body["asl"].update(x=body["asl"]["x"][::-1]),
        lambda body: body["asl"].update(returns=[[1.0, 2.0], [3.0]]),
        lambda body: body["asl"].update(returns=[[[math.inf]]]),
        lambda body: body["delay"].update(returns=body["delay"]["returns"][0]),
        lambda body: body["reference"].update(max_return=0.0),
        lambda body: body["latency"].update(p50=-1.0),
        lambda body: body.update(digest="0"),
        lambda body: body["asl"]["returns"][0][0].__setitem__(0, 1.5),  # as good a number as any
        lambda body: body.update(label="TD3"),
    ],
)
def test_what_is_no_evaluation_is_refused(evaluation: Evaluation, spoil: Any) -> None:
    body = copy.deepcopy(evaluation.to_json())
    spoil(body)
    with pytest.raises(LegatoError, match="this is not an evaluation that legato wrote"):
        Evaluation.from_json(body)
    with pytest.raises(LegatoError, match="this is not an evaluation that legato wrote"):
        Evaluation.from_json([body])  # type: ignore[arg-type]


def test_fas_is_that_of_its_own_grid_only() -> None:
    def of(x: tuple[int, ...]) -> Evaluation:
        returns = np.zeros((2, len(x), 3))
        return Evaluation(
            "A", "Pendulum-v1", "last", (0, 1), 1, None, Sweep(x, returns), reference=FASReference(10.0, 5.0)
        )

    assert of(GRID[:-1]).fas is None
    assert of(GRID).fas is not None
    np.testing.assert_allclose(of(GRID).fas_per_seed, [29 / 60, 29 / 60])


# --- comparing ---


def test_an_oracle_loses_nothing_by_deciding_rarely(evaluation: Evaluation) -> None:
    """Unrolled in a copy of the environment, a policy writes what it does when it is asked at every step."""
    environment, u = gymnasium.make("legato/LQR-v0").unwrapped, lambda s: np.tanh(-2.0 * s.sum(keepdims=True))
    s, _ = environment.reset(seed=0)
    closed, every = copy.deepcopy(environment), 7
    closed_loop, open_loop, s_closed = 0.0, 0.0, s
    for t in range(21):
        if t % every == 0:
            simulator, z, plan = copy.deepcopy(environment), s, []
            for _ in range(every):
                plan.append(u(z))
                z = simulator.step(plan[-1])[0]
        s, r, *_ = environment.step(plan[t % every])
        open_loop += r
        s_closed, r, *_ = closed.step(u(s_closed))
        closed_loop += r
    assert open_loop == closed_loop != 0
    scale, flat = FASReference(10.0, 2000.0), evaluation.asl.means[:, :1] * np.ones(len(GRID))
    found = dataclasses.replace(evaluation, reference=scale).fas_of_oracle
    assert found is not None and found.mean == pytest.approx(fas(flat, 10.0, 2000.0).mean())
    assert dataclasses.replace(evaluation, reference=None).fas_of_oracle is None


def test_compare_measures_only_what_was_not_measured_yet(
    evaluation: Evaluation, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def evaluate(run: Run, **options: Any) -> Evaluation:
        measured.append((run.path.name, options["which"]))
        return evaluation

    monkeypatch.setattr(comparing, "evaluate", evaluate)
    api.compare([run, untrained("sac", tmp_path / "new")], quiet=True)
    assert measured == [("new", "last")]


def test_compare_reads_what_was_kept_and_draws(evaluation: Evaluation, run: Run, tmp_path: Path) -> None:
    figure = tmp_path / "figures" / "both.svg"
    found = api.compare([run, str(run.path)], figure, quiet=True)
    assert [e.to_json() for e in found] == [evaluation.to_json()] * 2
    text = figure.read_text()
    assert "what rarer decisions cost" in text
    assert "SRL-4" in text


def test_runs_of_different_worlds_are_refused_before_any_is_measured(unknown_world: str, tmp_path: Path) -> None:
    runs = [untrained("sac", tmp_path / "a", unknown_world), untrained("sac", tmp_path / "b")]
    words = "runs of different environments cannot be compared: Diary-v0, Pendulum-v1"
    with pytest.raises(LegatoError) as problem:
        api.compare(runs, tmp_path / "figure.png", quiet=True)
    assert str(problem.value) == words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    assert not list(tmp_path.rglob("evaluation.json"))


def test_runs_that_differ_in_options_are_not_compared_by_naming_their_environment(tmp_path: Path) -> None:
    runs = [untrained("sac", tmp_path / str(g), env_options={"g": g}) for g in (5.0, 10.0)]
    with pytest.raises(LegatoError, match=r"cannot be compared: Pendulum-v1 \(g=10.0\), Pendulum-v1 \(g=5.0\)"):
        api.compare(runs, env="Pendulum-v1", quiet=True)
    assert not list(tmp_path.rglob("evaluation.json"))


def test_options_and_a_time_limit_may_be_given_to_all_runs_that_are_compared(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = []

    def evaluate(run: Run, **options: Any) -> Evaluation:
        played.append(options["env"].label)
        return evaluation

    monkeypatch.setattr(comparing, "evaluate", evaluate)
    runs = [untrained("sac", tmp_path / str(g), env_options={"g": g}) for g in (5.0, 10.0)]
    api.compare(runs, env_options={"g": 2.0}, max_episode_steps=20, quiet=True)
    assert played == ["Pendulum-v1 (g=2.0, max_episode_steps=20)"] * 2


def test_an_evaluation_that_calls_itself_otherwise_is_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    """Figures are named by it, in whatever folder that leads to."""
    run = untrained("srl", tmp_path / "run")
    body = evaluation.to_json() | {"which": "a/../../victim"}
    body.pop("digest", None)
    (run.path / "evaluation.json").write_text(json.dumps({"last": body}))
    with pytest.raises(LegatoError, match=r"'last' in .* calls itself 'a/../../victim'"):
        evaluation_of(run, quiet=True)


def test_latency_is_part_of_the_file(evaluation: Evaluation) -> None:
    body = evaluation.to_json()
    assert Latency(**body["latency"]) == evaluation.latency
    assert Latency(**body["latency_single"]) == evaluation.latency_single
