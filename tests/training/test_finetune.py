"""Going on by acting: a run that was killed or stopped ends with the numbers of one left alone, the offline policies
are left alone whatever happens, a fall is said and undone, and what does not fit is refused before there is a folder.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.learners import close, same
from tests.runs import load, same_end, saved
from tests.tiny import LOGGED, instead, logs, struck, swings, untrained, untrained_on_logs

from legato import api
from legato.algorithms import finetuner
from legato.data import dataset_statistics, recurrent_replay
from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning
from legato.training import finetune
from legato.training.learning_curve import learning_curve
from legato.training.offline import fingerprint
from legato.training.policy_file import named_leaves
from legato.training.run import Run
from legato.training.settings import finetuning_preset, override, preset
from legato.training.starting_point import load_initial

SHORT: dict[str, Any] = {"updates": 50, "eval_every": 50, "log_every": 50, "checkpoint_every": 50, "seeds": 3}
# Checkpoints are due between two rows of metrics, and within an episode (of 200 steps).
TIMES: dict[str, Any] = {"steps": 1200, "eval_every": 400, "log_every": 200, "checkpoint_every": 500}
TIMES |= {"eval_episodes": 2}
CRITICS: dict[str, Any] = {"hidden": 8, "layers": 1, "batch_size": 8}
TUNED: dict[str, dict[str, Any]] = {
    "ds4": {**CRITICS, "start_steps": 300, "critic_steps": 600, "critic_updates": 3, "updates": 2, "offline_steps": 20},
    "odt": {"batch_size": 8, "every": 100, "updates": 3, "episodes": 6, "warmup": 1},
}
# A ring that goes round: seven episodes take 201 rows each.
TUNED["ds4"] |= {"capacity": 700, "learning_rate": 1e-3, "warmup": 1, "target_increment": 0.4, "target_variation": 0.1}
# What presets tell policies of a run and from scratch differently: so all runs share what is compiled.
TUNED["ds4"] |= {"critics_per_actor": 2, "noise": (0.1, 0.1, 0.1), "critic_reads_return": True, "average": 0.5}
TUNED["ds4"] |= {"regularisation_weight": 0.5, "termination_penalty": 0.2, "tau": 0.01}
TUNED["odt"] |= {"offline_episodes": "all", "collect_target_scale": 1.2, "target_increment": 0.1, "average": 0.5}
TUNED["odt"] |= {"exploration_scale": 0.5}
BASES = {name: LOGGED[name] for name in TUNED}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return logs(tmp_path_factory.mktemp("data") / "swings.npz")


@pytest.fixture(scope="module")
def offline(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Three seeds of each algorithm that can go on; of one, weights are random. Read only, as the tests see to."""
    folder, data, spec = tmp_path_factory.mktemp("offline"), swings(), Spec(3, (-2.0,), (2.0,))
    known = {"environment": None, "fingerprint": fingerprint(data), "path": dataset}
    given = {"data": known, "dataset": dataset, **BASES["ds4"], "seeds": 3}
    return {
        "ds4": untrained_on_logs("ds4", folder / "ds4", spec, dataset_statistics.of(data, spec), **given),
        "odt": api.train("odt", dataset=dataset, out=folder / "odt", quiet=True, **BASES["odt"], **SHORT),
    }


def tune(run: Run, out: Path, **options: Any) -> Run:
    """A fine-tuning of two seeds that takes seconds."""
    given = {"seeds": 2, **TIMES, **TUNED[run.algorithm], **options}
    return api.finetune(run, "Pendulum-v1", out=out, quiet=True, **given)


@pytest.fixture(scope="module")
def untouched(offline: dict[str, Run]) -> dict[str, dict[str, bytes]]:
    """What these folders held before anything went on."""
    return {name: content(run.path) for name, run in offline.items()}


@pytest.fixture(scope="module")
def updates() -> list[tuple[Any, ...]]:
    """Of the runs below, how they learnt: whose updates, the first, how many, and whether the actor learns too."""
    return []


@pytest.fixture(scope="module")
def unbroken(
    offline: dict[str, Run], untouched: Any, updates: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """Both fine-tuned in one go. Read only."""
    folder, advance = tmp_path_factory.mktemp("tuned"), finetune.advance

    def watched(module: Any, tuning: Any, joint: bool, *rest: Any) -> Any:
        updates.append((module, *rest[-2:], joint))
        return advance(module, tuning, joint, *rest)

    with pytest.MonkeyPatch.context() as patched:
        instead(patched, finetune, watched)
        return {name: tune(run, folder / name) for name, run in offline.items()}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def measured(run: Run, column: str = "eval_return") -> dict[int, list[tuple[int, float]]]:
    """By seed: the steps at which a column has a value, and that."""
    with (run.path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row[column]]
    return {seed: [(int(r["step"]), float(r[column])) for r in rows if int(r["seed"]) == seed] for seed in run.seeds}


# --- killed, stopped, resumed ---


def test_the_first_evaluation_is_interrupted_too(
    offline: dict[str, Run], unbroken: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the offline policies, before anything was learnt."""
    path = tmp_path / "interrupted"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        made = struck(patched, finetune, 1)
        tune(offline["odt"], path)
    assert made == [3] and saved(path) == [0]
    api.finetune(resume=path, quiet=True)
    same_end(path, unbroken["odt"].path)


def test_it_is_resumed_by_its_own_command_alone(unbroken: dict[str, Run]) -> None:
    path = unbroken["ds4"].path
    with pytest.raises(LegatoError, match="is a fine-tuning"):
        api.train(resume=path)
    with pytest.raises(LegatoError, match="give only `resume`"):
        api.finetune(resume=path, updates=5)


# --- what is handed over ---


@pytest.mark.parametrize("algorithm", BASES)
def test_the_offline_policies_are_left_as_they_were_and_carried_along(
    algorithm: str, offline: dict[str, Run], untouched: dict[str, dict[str, bytes]], unbroken: dict[str, Run]
) -> None:
    assert content(offline[algorithm].path) == untouched[algorithm]
    run = unbroken[algorithm]
    for seed in run.seeds:
        start, source = (r.policy_path(seed, w) for r, w in ((run, "start"), (offline[algorithm], "last")))  # type: ignore[arg-type]
        assert content(start)["weights.safetensors"] == content(source)["weights.safetensors"]


@pytest.mark.parametrize("algorithm", BASES)
def test_it_learns_keeps_the_best_and_can_be_measured_like_any(algorithm: str, unbroken: dict[str, Run]) -> None:
    run = unbroken[algorithm]
    steps, returns = learning_curve(run)
    assert steps.tolist() == [0, 400, 800, 1200] and returns.shape == (2, 4)
    for i, seed in enumerate(run.seeds):
        start, last, best = (api.load(run.path, seed, which) for which in ("start", "last", "best"))
        assert not same(start.policy, last.policy)
        assert last.card.extra["step"] == 1200 and last.card.algorithm == algorithm
        assert best.card.extra["step"] == steps[returns[i].argmax()]
    assert (run.path / "figures" / "finetune.png").stat().st_size > 1000
    assert api.evaluate(run, which="start", episodes=1, sweep=False, quiet=True).which == "start"


def test_a_fall_is_said_and_with_rollback_undone(
    offline: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 0 falls from 100 to 85, which is more than a tenth; seed 1 to 95, which is not."""
    told = iter([[100.0, 100.0], [85.0, 95.0], [100.0, 100.0], [100.0, 100.0]])
    actors: list[Any] = []

    def measure(loop: finetune.FinetuningLoop, policies: Any) -> np.ndarray:
        actors.append(jax.tree.map(np.array, loop.session.learner.actor))
        return np.array(next(told))

    monkeypatch.setattr(finetune.FinetuningLoop, "_measure", measure)
    turn, after = finetune.FinetuningLoop.turn, []

    def watched(loop: finetune.FinetuningLoop) -> None:
        if loop.session.step == 800:
            after.append(
                (jax.tree.map(np.array, loop.session.learner.actor), loop.eval_target.copy(), loop.target_scale.copy())
            )
        turn(loop)

    monkeypatch.setattr(finetune.FinetuningLoop, "turn", watched)
    options = {**TIMES, **TUNED["ds4"], "eval_every": 800, "steps": 1200, "rollback": True, "regression_tolerance": 0.1}
    options |= {"target": 20.0, "seeds": 2}
    with pytest.warns(LegatoWarning, match="^asked for 20, outside the returns of the data, "):
        api.finetune(offline["ds4"], "Pendulum-v1", out=tmp_path / "run", **options)
    errors = capsys.readouterr().err
    assert "seed 0 earns 85.0, the offline policy 100.0; rolled back to its best" in errors
    assert "seed 1 earns" not in errors
    offline_actor, fallen, (back, asks, scale) = actors[0], actors[1], after[0]
    assert asks.tolist() == [20.0, 140.0] and scale.tolist() == [0.5, 1.0]  # as when it was best, and as for 100
    pick = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)  # noqa: E731
    assert not same(pick(fallen, 0), pick(offline_actor, 0))
    assert same(pick(back, 0), pick(offline_actor, 0))
    assert same(pick(back, 1), pick(fallen, 1))


# --- the loop ---


@pytest.mark.usefixtures("unbroken")
def test_critics_learn_first_then_the_actor_too(updates: list[tuple[Any, ...]]) -> None:
    """Nothing is learnt before there is enough; the noise is that of the phase."""
    found = [rest for module, *rest in updates if module is finetuner("ds4-ac")]
    assert found == [[3 * i, 3, False] for i in range(30)] + [[90 + 2 * i, 2, True] for i in range(60)]


def test_the_replay_holds_whole_episodes_and_what_was_logged(offline: dict[str, Run], tmp_path: Path) -> None:
    """Two logged episodes (20 steps at most), then three of Pendulum, 200 steps each, whose prompts vary."""
    run = tune(offline["ds4"], tmp_path / "run", steps=600, checkpoint_every=450)
    state = load(run.path)[1]["replay"]
    data = swings()
    module = finetuner("ds4-ac")
    kept = data.lengths[module.initial_episodes(run.tuning, data)]
    assert 0 < kept.sum() <= 20
    rows = int((kept + 1).sum()) + 3 * 201
    assert state["added"].tolist() == [rows, rows]
    found = recurrent_replay.unpack(state["rows"][0], run.spec)
    ends = np.flatnonzero(np.asarray(found.valid) == 0)
    assert np.diff([-1, *ends]).tolist() == [*(kept + 1), 201, 201, 201]
    logged, paid = (np.asarray(column)[: kept[0]] for column in (found.ret, found.reward))
    first = api.load(run.path, which="start").policy.statistics.target  # what every logged episode was asked for
    np.testing.assert_allclose(logged, first - np.cumsum([0, *paid[:-1]]), rtol=1e-4)
    asked = np.asarray(found.ret)[ends[-4:-1] + 1]
    assert len(set(asked.tolist())) == 3 and (np.abs(asked - first) <= 0.1 * abs(first)).all()


def test_a_seed_ends_the_same_whoever_is_beside_it(
    offline: dict[str, Run], unbroken: dict[str, Run], tmp_path: Path
) -> None:
    """Seed 1, beside seed 0 and beside seed 2."""
    other = tune(offline["ds4"], tmp_path / "other", seed=1)
    assert other.seeds == [1, 2]
    np.testing.assert_allclose(measured(other)[1], measured(unbroken["ds4"])[1], rtol=1e-3)
    weights = (load_file(run.policy_path(1) / "weights.safetensors") for run in (other, unbroken["ds4"]))
    close(*weights, 1e-3)
    assert measured(other)[2] != measured(other)[1]


# --- what does not fit ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 100}, "does not hold one episode"),
        ({"capacity": 10_000_000, "replay_gib": 0.01}, r"lower `capacity` to \d+, train the policy with core s5"),
        ({"env": "MountainCarContinuous-v0"}, "differ in observations of so many numbers: 3 and 2"),
        ({"env": "Acrobot-v1"}, "differ in observations"),
        ({"method": "odt-online"}, "a policy of ds4 is fine-tuned by ds4-ac or ds4-rw, not by 'odt-online'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"noise": (0.1, -0.2, 0.1)}, "noise must be at least 0"),
        ({"n_step": 201}, "n_step 201 is longer than an episode of the environment"),
        ({"tau": 2.0}, r"tau must lie in \[0, 1\]"),
        ({"seeds": 4}, "has no seed 3"),
        ({"capacityy": 3}, "unknown option 'capacityy'"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(
    options: dict[str, Any], message: str, offline: dict[str, Run], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = {"env": "Pendulum-v1", **TUNED["ds4"], **options}
    with pytest.raises(LegatoError, match=message):
        api.finetune(offline["ds4"], given.pop("env"), method=given.pop("method", None), out=out, quiet=True, **given)
    assert not out.exists()


def test_as_published_the_optimiser_of_the_run_goes_on(
    offline: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed by seed; from the last policies only, which are those that it belongs to."""
    loops: list[finetune.FinetuningLoop] = []
    monkeypatch.setattr(finetune.Session, "train", lambda session, loop: loops.append(loop) or loop.close())
    goes_on = {"continue_optimiser": True, "learning_rate": 0.0, "seed": 1, "seeds": 1}
    finetune.start(
        offline["odt"].path,
        "odt-online",
        "paper",
        *override(*finetuning_preset("paper", "odt-online", "Pendulum-v1"), **{**TIMES, **TUNED["odt"], **goes_on}),
        tmp_path / "on",
        quiet=True,
    )
    known = load(offline["odt"].path)[1]["learner"]
    found = named_leaves(loops[0].session.learner.optimisers["actor"])
    assert found
    for name, array in found.items():
        np.testing.assert_array_equal(array[0], known[f"optimisers.network.{name}"][1], err_msg=name)
    with pytest.raises(LegatoError, match="the optimiser goes on from where"):
        tune(offline["odt"], tmp_path / "best", which="best", **goes_on)
    assert not (tmp_path / "best").exists()


def test_a_run_without_an_offline_policy_is_refused(offline: dict[str, Run], dataset: str, tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="is a run of sac, which cannot be fine-tuned: odt and ds4 can"):
        api.finetune(untrained("sac", tmp_path / "sac"), "Pendulum-v1")
    bare = Run.create(
        tmp_path / "bare", "ds4", "cpu", offline["ds4"].config, offline["ds4"].settings, offline["ds4"].spec
    )
    with pytest.raises(LegatoError, match="has no 'last' policy of seed 0 yet"):
        api.finetune(bare, "Pendulum-v1")
    with pytest.raises(LegatoError, match="names an environment: name one with `env`"):
        api.finetune(offline["ds4"])


def test_a_fine_tuning_is_not_fine_tuned_again(unbroken: dict[str, Run], offline: dict[str, Run]) -> None:
    with pytest.raises(LegatoError, match="is a fine-tuning itself: go on with `resume=") as refused:
        api.finetune(unbroken["ds4"])
    assert str(offline["ds4"].path) in str(refused.value)


def test_an_environment_that_pays_otherwise_than_the_data_is_warned_of(
    offline: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data earned -8 to 8 or so; what the policies are told to earn lies about that, or far below."""
    initial = load_initial(offline["ds4"], finetune.FinetuneSettings())
    deciles = np.asarray(cast(Any, initial.policies[0].policy).statistics.deciles)
    warned = []
    for level in (0.5 * (deciles[0] + deciles[-1]), deciles[0] - 2 * (deciles[-1] - deciles[0])):
        monkeypatch.setattr(
            finetune.FinetuningLoop, "_measure", lambda loop, policies, level=level: np.array([level, 0.0])
        )
        tune(offline["ds4"], tmp_path / f"{level:.0f}", steps=50)
        warned.append("does it have the reward of the data?" in capsys.readouterr().err)
    assert warned == [False, True]


def test_a_target_beyond_the_data_is_warned_of(
    offline: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(LegatoWarning, match="^asked for 500, outside the returns of the data, "):
        run = tune(offline["ds4"], tmp_path / "run", steps=100, target=500.0)
    assert "the replay takes" not in capsys.readouterr().err  # which is progress, and it was to be quiet
    api.evaluate(run, episodes=1, sweep=False, quiet=True)  # no warning: it is what the policies have come to ask for
    with pytest.warns(LegatoWarning, match="^asked for 900, outside the returns of the data, "):
        api.evaluate(run, episodes=1, sweep=False, quiet=True, targets=[900.0])


SCRATCH: dict[str, Any] = {**TIMES, **TUNED["ds4"], "steps": 900, "target": -150.0, "quiet": True}


def test_a_policy_may_begin_from_scratch(tmp_path: Path) -> None:
    """Each seed from weights of its own, asked for what it is told, without data and without a word about data."""
    run = api.finetune("ds4", "Pendulum-v1", out=tmp_path / "run", seeds=2, base=BASES["ds4"], **SCRATCH)
    assert run.config == replace(preset("cpu", "ds4", "Pendulum-v1")[0], **BASES["ds4"])
    assert (run.algorithm, run.method, run.data) == ("ds4", "ds4-ac", {"environment": "Pendulum-v1", "start": None})
    with pytest.raises(LegatoError, match=r"is a fine-tuning itself: go on with `resume=\S+`$"):
        api.finetune(run, **SCRATCH)
    begun = [api.load(run.path, seed, "start").policy for seed in run.seeds]
    assert not same(begun[0].network, begun[1].network)
    assert [float(p.statistics.target) for p in begun] == [-150, -150]
    assert not same(begun[0].network, api.load(run.path, 0).policy.network)
    assert len(measured(run)[0]) == 4
    again = api.finetune(
        "ds4", "Pendulum-v1", out=tmp_path / "again", seed=1, seeds=2, base=BASES["ds4"], **{**SCRATCH, "steps": 10}
    )
    assert same(begun[1], api.load(again.path, 1, "start").policy)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("ds4", {"target": None}, "must be told what return to ask for: give `target`"),
        ("ds4", {"env": None}, "^name one with `env`"),
        ("ds4", {"method": "odt-online"}, "a policy of ds4 is fine-tuned by ds4-ac or ds4-rw"),
        ("sac", {}, "'sac' is not a run folder"),
        ("ds4", {"base": {"chanels": 8}}, "unknown option of ds4 'chanels'; did you mean 'channels'"),
        ("ds4", {"base": {"channels": "8"}}, "channels of ds4 is of type int; '8' was given"),
        ("ds4", {"base": {"layers": True}}, "layers of ds4 is of type int; True was given"),
    ],
)
def test_what_cannot_begin_from_scratch_is_refused(
    source: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {**SCRATCH, "env": "Pendulum-v1", **options}
    with pytest.raises(LegatoError, match=message):
        api.finetune(source, given.pop("env"), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_an_online_transformer_may_begin_from_scratch(tmp_path: Path) -> None:
    """Its replay begins with its own first episode, and before that nothing is learnt."""
    options = {**TIMES, **TUNED["odt"], "target": -150.0, "steps": 500, "eval_every": 250, "seeds": 2}
    run = api.finetune("odt", "Pendulum-v1", out=tmp_path / "run", base=BASES["odt"], quiet=True, **options)
    found = [api.load(run.path, which=which).policy.reader.acting.network for which in ("start", "last")]
    assert run.method == "odt-online" and not same(*found)


def test_settings_are_of_sense() -> None:
    settings = finetune.FinetuneSettings()
    for name, value in (("steps", 0), ("replay_gib", 0.0), ("regression_tolerance", -1.0), ("capacity", 1)):
        with pytest.raises(LegatoError, match=name):
            replace(settings, **{name: value})
