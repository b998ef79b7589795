"""What the house knows of an algorithm without JAX: its hyper-parameters, presets, label and command."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.cases import ALL, SMALL

import legato
from legato.algorithms import entries
from legato.algorithms.entry import Task
from legato.data.spec import Spec
from legato.options import documentation
from legato.training.run import Run
from legato.training.settings import KINDS, PRESETS, override

NAMES = list(ALL)
PLACES = ("Pendulum-v1", "Hopper-v5", "AntMaze_UMaze-v5", "D4RL/door/human-v2", "my_logs.npz")
# What every module has, by how it learns (see `protocol`).
EVERY = ("init", "update", "policy")
FUNCTIONS = {
    "online": (*EVERY, "new_policy", "batches", "plan_length"),
    "offline": (*EVERY, "new_policy", "batches", "plan_length", "select_data"),
    "finetuning": (
        *EVERY,
        *("check", "phase", "deployed", "explorer", "targets", "on_new_best", "roll_back", "replay"),
        *("longest_episode", "reads_logs", "initial_episodes"),
    ),
}


def small(name: str) -> Any:
    return dataclasses.replace(ALL[name].config(), **SMALL[name])


@pytest.mark.parametrize("name", NAMES)
def test_every_hyper_parameter_is_documented(name: str) -> None:
    config = ALL[name].config
    texts = documentation(config)
    assert list(texts) == [field.name for field in dataclasses.fields(config)]
    assert [field for field, text in texts.items() if len(text) <= 10] == []
    assert ALL[name].summary and "\n" not in ALL[name].summary


@pytest.mark.parametrize("name", NAMES)
def test_hyper_parameters_come_back_from_a_runs_file_as_they_were(name: str, tmp_path: Path) -> None:
    found, spec = ALL[name], Spec(3, (-2.0,), (2.0,))
    for i, config in enumerate((found.config(), small(name))):
        settings, path = KINDS[found.learns](), tmp_path / str(i)
        if found.learns == "finetuning":
            base = small(found.continues[0])
            Run.create(path, found.continues[0], "cpu", base, settings, spec, method=name, tuning=config)
        else:
            Run.create(path, name, "cpu", config, settings, spec)
        read = Run(path)
        assert (read.config if read.method is None else read.tuning) == config
        assert read.settings == settings


@pytest.mark.parametrize("name", NAMES)
def test_hyper_parameters_are_frozen_and_can_be_compiled_in(name: str) -> None:
    one, other = ALL[name].config(), ALL[name].config()
    assert hash(one) == hash(other) and one == other
    assert one != small(name)
    field = dataclasses.fields(one)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, field, getattr(one, field))


@pytest.mark.parametrize("name", NAMES)
def test_presets_build_everywhere_and_nothing_in_them_is_written_twice(name: str) -> None:
    """What a preset names lies beside the defaults of hyper-parameters or of settings, each in its own half."""
    found = ALL[name]
    assert set(found.presets) == set(PRESETS)
    scratches = (False, True) if found.learns == "finetuning" else (False,)
    for task in (Task(place, scratch) for place in PLACES for scratch in scratches):
        for preset in found.presets.values():
            chosen = preset(task)
            config, settings = found.config(**chosen.options), KINDS[found.learns](**chosen.settings)
            assert override(config, settings) == (config, settings)
            assert not set(chosen.options) & {field.name for field in dataclasses.fields(settings)}


@pytest.mark.parametrize("name", NAMES)
def test_a_label_is_one_short_line_and_a_command_one_of_three(name: str) -> None:
    for config in (ALL[name].config(), small(name)):
        label = ALL[name].label(config)
        assert 0 < len(label) <= 40 and label == " ".join(label.split())
        assert ALL[name].command(config) in ("nothing", "return", "goal")


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_the_functions_of_the_protocol(name: str) -> None:
    found = ALL[name]
    module = found.load()
    assert [each for each in FUNCTIONS[found.learns] if not hasattr(module, each)] == []
    if found.learns == "offline":
        assert hasattr(module, "statistics") or "prepare" in found.offers
    for function in ("init", "update"):
        assert next(iter(inspect.signature(getattr(module, function)).parameters)) == "config"
    if found.learns != "finetuning":
        assert module.plan_length(small(name)) >= 1


def test_what_is_fine_tuned_exists() -> None:
    for found in entries("finetuning").values():
        assert found.continues and set(found.continues) <= set(entries("offline"))


def test_entries_presets_and_labels_bring_no_jax() -> None:
    """One process for all of them."""
    code = f"""
import sys
from legato.algorithms import entries
from legato.algorithms.entry import Task
for found in entries("online", "offline", "finetuning").values():
    for preset in found.presets.values():
        for place in {PLACES}:
            config = found.config(**preset(Task(place)).options)
            print(found.name, found.label(config), found.command(config), found.summary)
print(*sorted({{"jax", "gymnasium", "scipy", "optax", "equinox"}} & set(sys.modules)), "END")
"""
    paths = [str(Path(legato.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["END"]
    assert {line.split()[0] for line in done.stdout.splitlines()} == {*ALL, "END"}
