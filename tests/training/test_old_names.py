"""Files and words of before options, arrays and loops were renamed: the very names, in the very algorithms."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tests.tiny import LOGGED, logs, swings

import legato
from legato.algorithms import algorithm, entries
from legato.algorithms.decision_s4.config import DS4AC
from legato.algorithms.decision_transformer.config import DT, OnlineDT
from legato.algorithms.trajectory_transformer.config import TT
from legato.cli import main
from legato.data import dataset_statistics
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.options import RENAMED
from legato.training import files
from legato.training.policy_file import fill, named_leaves
from legato.training.renamed import LEAVES, with_present_states
from legato.training.settings import KINDS, FinetuneSettings, change_options

SPEC = Spec(3, (-2.0,), (2.0,))
CLASSES = [*(found.config for found in entries("online", "offline", "finetuning").values()), *KINDS.values()]


@pytest.mark.parametrize(("old", "now"), RENAMED)
def test_every_rename_is_that_of_an_option_and_is_read(old: str, now: str) -> None:
    having = [kind for kind in CLASSES if now in {field.name for field in dataclasses.fields(kind)}]
    assert having, now
    for kind in having:
        before = {(old if name == now else name): value for name, value in dataclasses.asdict(kind()).items()}
        assert old in before
        assert files.instance(kind, before, "config") == kind()


def test_old_values_count() -> None:
    old = {"prompt": 3.0, "ahead": 0.2, "spread": 0.4, "logs": "all"}
    found = files.instance(OnlineDT, old, "tuning")
    assert (found.collect_target_scale, found.target_increment, found.exploration_scale) == (3, 0.2, 0.4)
    assert found.offline_episodes == "all"
    old = {"anchor": 2.0, "anchor_at": "start", "shortest": 0.5, "regret": 0.1, "logged": 7, "ahead": 0.2}
    found = files.instance(DS4AC, old, "tuning")
    assert (found.regularisation_weight, found.regularise_towards, found.min_regularisation_scale) == (2, "start", 0.5)
    assert (found.termination_penalty, found.offline_steps, found.target_increment) == (0.1, 7, 0.2)
    assert files.instance(DT, {"memory": "cache"}, "config").decoding == "cache"
    found = files.instance(FinetuneSettings, {"memory": 2.5, "drop": 0.3}, "settings")
    assert (found.replay_gib, found.regression_tolerance) == (2.5, 0.3)
    found = files.instance(TT, {"elite": 0.5, "mppi": 0.1, "blur": 1.5, "ordered": True}, "config")
    assert (found.elite_fraction, found.plan_temperature) == (0.5, 0.1)
    assert (found.label_smoothing_bins, found.cosine_embeddings) == (1.5, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "odt", "--dataset", "a.npz", "--edge", "0.1"], "'--edge' is called '--action-clip' now"),
        (["train", "dt", "--dataset", "a.npz", "--memory=cache"], "'--memory' is called '--decoding' now"),
        (
            ["train", "tt", "--dataset", "a.npz", "--no-ordered"],
            "'--ordered' is called '--cosine-embeddings' now",
        ),
        (
            ["finetune", "ds4", "--env", "Pendulum-v1", "--target", "1", "--anchor", "2"],
            "'--anchor' is called '--regularisation-weight' now",
        ),
        (
            ["finetune", "odt", "--env", "Pendulum-v1", "--target", "1", "--memory", "2"],
            "'--memory' is called '--replay-gib' now",
        ),
    ],
)
def test_an_old_option_of_a_command_is_answered_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.strip() == f"error: {told}"


def test_an_old_keyword_is_answered_in_one_line(tmp_path: Path) -> None:
    dataset = logs(tmp_path / "swings.npz")
    with pytest.raises(LegatoError, match=r"^`reads` is called `eval_context` now$"):
        legato.train("odt", dataset=dataset, reads=2)
    with pytest.raises(LegatoError, match=r"^`drop` is called `regression_tolerance` now$"):
        legato.finetune("ds4", "Pendulum-v1", target=1.0, drop=0.1)
    with pytest.raises(LegatoError, match=r"^`delayed` is called `delay_rewards` now$"):
        change_options("dt", DT(), {"delayed": True})


@pytest.mark.parametrize("name", ["bc", "dt", "ds4", "odt", "iql"])
def test_a_policy_is_read_under_the_old_names_of_its_arrays(name: str) -> None:
    config = entries()[name].config(**LOGGED[name])
    module, data = algorithm(name), swings()
    learner = module.init(config, SPEC, jax.random.key(0), dataset_statistics.of(data, SPEC))
    for tree in (learner, module.policy(config, learner)):
        was = {now: old for old, now in LEAVES.items()}
        present = named_leaves(tree)
        old = {".".join(was.get(part, part) for part in path.split(".")): array for path, array in present.items()}
        assert sum("facts" in path.split(".") for path in old) > 3
        found = fill(jax.tree.map(np.zeros_like, tree), old, "here")
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_state_of_a_fine_tuning_is_read_under_its_old_names() -> None:
    loop: dict[str, Any] = {
        name: np.array(i) for i, name in enumerate(("level", "best_asks", "trust", "asks", "tries"))
    }
    state = with_present_states({"memory": {"rows": np.ones(1)}, "kept": {}, "open": {}, "met": {}, "loop": loop})
    names = ("offline_return", "best_target", "target_scale", "eval_target", "collect_target")
    assert [int(state["loop"][name]) for name in names] == [0, 1, 2, 3, 4]
    assert {"replay", "best_deployed", "running_episodes", "replay_metrics"} <= state.keys()


def test_no_error_advises_an_option_by_a_name_that_it_had() -> None:
    present = {field.name for kind in CLASSES for field in dataclasses.fields(kind)}
    old = {name for name, _ in RENAMED} - present
    found = []
    for path in sorted(Path(legato.__file__).parent.rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        raised = (node for node in calls if getattr(node.func, "id", "") in ("LegatoError", "LegatoWarning"))
        texts = (part.value for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant))
        named = {name for text in texts if isinstance(text, str) for name in re.findall(r"`(\w+)", text)}
        found += [f"{path.name}: {name}" for name in named & old]
    assert found == []
