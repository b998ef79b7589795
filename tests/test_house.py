"""The house: who may import whom, what stays asleep until it is needed, and that every option is explained."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import legato
from legato.algorithms import FOLDERS, algorithm, entries
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer.config import DT
from legato.algorithms.protocol import OPTIONAL
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl.config import SRL
from legato.cli import main
from legato.data.spec import Spec
from legato.options import documentation, rules
from legato.training import policy_file
from legato.training.settings import KINDS, PRESETS

SOURCE = Path(legato.__file__).parent

# A room imports only from rooms before it; `nn` and `errors` serve all. A new room must be given its place here.
ROOMS = (
    *("errors", "options", "nn", "data", "envs", "policy", "player", "rollout", "models", "planning", "losses"),
    *("algorithms", "training", "loading", "evaluation", "deploy", "api", "cli", "__main__"),
)


def modules() -> dict[str, Path]:
    """Every module of the package by name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def shared_by_algorithms() -> set[str]:
    """The modules that lie beside the algorithms' folders."""
    return {path.stem for path in (SOURCE / "algorithms").glob("*.py")}


def imports(name: str, source: str, package: bool = False) -> set[str]:
    """The modules of legato that a module names in any import, however late; `from a import b` may mean `a.b`."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")[: len(name.split(".")) - node.level + package]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known or base == "legato" else base)
    return {module for module in found if module.split(".")[0] == "legato"}


def forbidden(name: str, source: str, package: bool = False) -> list[str]:
    """What a module imports and must not."""
    room = name.split(".")[1]
    above = ROOMS[: ROOMS.index(room) + 1]

    def allowed(target: str) -> bool:
        _, *rest = target.split(".")
        if room == "algorithms" and rest[:1] == ["algorithms"]:  # of its own folder, or shared by all
            return not rest[1:] or rest[1] in (*name.split(".")[2:3], *shared_by_algorithms())
        return bool(rest) and rest[0] in ("nn", "__version__", *above)

    return [target for target in sorted(imports(name, source, package)) if not allowed(target)]


def test_every_module_has_a_room() -> None:
    rooms = {name.split(".")[1] for name in modules() if name != "legato"}
    assert rooms <= set(ROOMS)
    assert {"nn", "data", "algorithms", "rollout", "cli"} <= rooms  # the walk found the house


@pytest.mark.parametrize("name", [name for name in modules() if name != "legato"])
def test_rooms_import_only_from_rooms_above(name: str) -> None:
    path = modules()[name]
    assert forbidden(name, path.read_text(), path.stem == "__init__") == []


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("legato.nn.mlp", "from legato.errors import LegatoError", []),
        ("legato.nn.mlp", "from legato.data.spec import Spec", ["legato.data.spec"]),
        ("legato.data.replay", "from legato.nn.mlp import MLP", []),
        ("legato.data.replay", "import legato.policy", ["legato.policy"]),
        ("legato.rollout", "def f():\n    from legato import models", ["legato.models"]),
        ("legato.rollout", "from .policy import Policy", []),
        ("legato.models.dynamics", "from ..algorithms import srl", ["legato.algorithms.srl"]),
        ("legato.models.dynamics", "from . import other", []),
        ("legato.algorithms.srl.srl", "from legato.algorithms.srl.config import SRL", []),
        ("legato.algorithms.srl.srl", "from legato.algorithms import schedules", []),
        ("legato.algorithms.srl.srl", "from legato.algorithms.sac import sac", ["legato.algorithms.sac.sac"]),
        ("legato.algorithms.srl.srl", "from legato.algorithms.sac.sac import Actor", ["legato.algorithms.sac.sac"]),
        ("legato.algorithms.srl.srl", "from ..sac.sac import Actor", ["legato.algorithms.sac.sac"]),
        ("legato.algorithms.decision_s4.reweighted", "from .decision_s4 import Network", []),
        (
            "legato.algorithms.schedules",
            "from legato.algorithms.sac.config import SAC",
            ["legato.algorithms.sac.config"],
        ),
        ("legato.training.online", "from legato.evaluation import fas", ["legato.evaluation.fas"]),
        ("legato.training.online", "import legato", ["legato"]),
        ("legato.training.online", "import numpy, legato.cli", ["legato.cli"]),
        ("legato.api", "from legato.cli.train import run", ["legato.cli.train"]),
        ("legato.cli.train", "from legato import api, __version__", []),
        ("legato.evaluation.fas", "import legatoish", []),
        ("legato.cli.train", "from legato.cellar import wine", ["legato.cellar"]),
    ],
)
def test_a_forbidden_import_would_be_caught(name: str, source: str, wrong: list[str]) -> None:
    assert forbidden(name, source) == wrong


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs the code in a Python of its own."""
    paths = [str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


# --- who asks which algorithm it is ---

# The list of folders; what the demo trains; and where the word means something else: the time of a step.
MAY_NAME = {"algorithms/__init__.py", "cli/demo.py"}
OTHER_WORDS = {("envs/environments.py", "dt")} | {
    (f"envs/tasks/pde/{plant}.py", "dt") for plant in ("burgers", "kuramoto_sivashinsky")
}


def named(source: str) -> list[str]:
    """Names of algorithms that stand in code as they are, and imports from their folders."""
    names, found = {*entries("online", "offline", "finetuning")}, []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in names:
            found.append(node.value)
        elif isinstance(node, ast.ImportFrom):
            folder = (node.module or "").removeprefix("legato.algorithms.").split(".")[0]
            below = node.module == "legato.algorithms" and any(alias.name in FOLDERS for alias in node.names)
            if below or ((node.module or "").startswith("legato.algorithms.") and folder in FOLDERS):
                found.append(node.module or "")
    return found


def test_nobody_outside_its_folder_asks_which_algorithm_it_is() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        if where in MAY_NAME or where.startswith(tuple(f"algorithms/{folder}/" for folder in FOLDERS)):
            continue
        names = [name for name in named(path.read_text()) if (where, name) not in OTHER_WORDS]
        found |= {where: names} if names else {}
    assert found == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('if run.algorithm == "tt":\n    pass', ["tt"]),
        ('if name in ("dt", "odt"):\n    pass', ["dt", "odt"]),
        ("from legato.algorithms.srl.srl import Actor", ["legato.algorithms.srl.srl"]),
        ("from legato.algorithms import sac", ["legato.algorithms"]),
        ('from legato.algorithms import entry\nprint("legato train srl --help")', []),
    ],
)
def test_who_asks_would_be_caught(source: str, found: list[str]) -> None:
    assert named(source) == found


# Benchmarks that are about one algorithm, or lay several beside each other that a page of the documentation compares.
BENCHMARKS = {
    "decision.py": "what decisions of SAC, SRL and SRL's planner cost",
    "finetune.py": "Decision S4's two forms, and a Decision Transformer beside it",
    "history.py": "a window against a recurrence: Decision Transformer and Decision S4",
    "locomotion.py": "columns of the table: variants of algorithms that learn from logs",
    "mopo.py": "MOPO beside behaviour cloning",
    "narrow_actions.py": "a table of behaviour cloning",
    "offline.py": "operations of updates, counted by hand for BC, DT and DS4",
    "images.py": "SAC, beside itself with vectors",
    "model_based.py": "MBPO and CMLO, beside SAC",
    "online.py": "SAC beside SRL at several horizons",
    "planning.py": "the Trajectory Transformer's search",
    "prediction.py": "the Trajectory Transformer's model",
    "same_numbers.py": "a small command for every algorithm; it checks that none is missing",
    "seeds.py": "a table of SRL",
    "toys.py": "one experiment for every claim of a paper",
    "updates.py": "operations of updates, counted by hand for SAC and SRL",
}


def test_benchmarks_take_their_choices_from_entries() -> None:
    files = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
    assert files
    assert {file.name for file in files if named(file.read_text())} == {*BENCHMARKS}


# Where one of several cases is of another kind than the others: it holds its action, has no returns, or is a rival.
MAY_ASK = {"tests/test_policy.py", "benchmarks/finetune.py"}
MAY_ASK |= {f"tests/training/test_{what}.py" for what in ("offline", "online", "settings")}


def asked(source: str) -> list[str]:
    """Where code decides by an algorithm's name, and lists by hand of all that learn in one way."""
    ways = [{*entries("online")}, {*entries("offline")}, {*entries("finetuning")}]
    names, found = set().union(*ways), []

    def known(nodes: list[ast.expr]) -> set[str]:
        return {node.value for node in nodes if isinstance(node, ast.Constant) and node.value in names}

    def decides(test: ast.expr) -> bool:
        compared = [node for node in ast.walk(test) if isinstance(node, ast.Compare)]
        sides = [side for node in compared for side in (node.left, *node.comparators)]
        return any(known([side, *getattr(side, "elts", [])]) for side in sides)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            found += [ast.unparse(node.test)] * decides(node.test)
        elif isinstance(node, ast.comprehension):
            found += [ast.unparse(test) for test in node.ifs if decides(test)]
        elif isinstance(node, ast.match_case):
            parts = [part for part in ast.walk(node.pattern) if isinstance(part, ast.expr)]
            found += [ast.unparse(node.pattern)] * bool(known(parts))
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            found += [ast.unparse(node)] * any(way <= known(node.elts) for way in ways)
    return found


@pytest.mark.parametrize("part", ["tests", "benchmarks"])
def test_nobody_decides_by_an_algorithm_s_name_or_lists_them_by_hand(part: str) -> None:
    """They may take one for their subject. Tests of one algorithm stand in `tests/algorithms`."""
    root, found = Path(__file__).parents[1], {}
    for path in sorted((root / part).rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if not where.startswith("tests/algorithms/") and where not in {*MAY_ASK, "tests/test_house.py"}:
            places = asked(path.read_text())
            found |= {where: places} if places else {}
    assert found == {}


ACTING = tuple(entries("online"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('if algorithm == "dt":\n    pass', ["algorithm == 'dt'"]),
        ('x = 1 if not (a and run.algorithm in ("dt", "bc")) else 2', ["not (a and run.algorithm in ('dt', 'bc'))"]),
        ('x = [n for n in y if n != "sac"]', ["n != 'sac'"]),
        ('match x:\n    case "tt":\n        pass', ["'tt'"]),
        (f"for name in {ACTING}:\n    pass", [str(ACTING)]),
        ('assert run.algorithm == "sac"', []),
        ('train("sac")\nSIZES = {"sac": 1, "td3": 2, "srl": 3}\nfor name in ("sac", "td3"):\n    pass', []),
    ],
)
def test_who_decides_by_name_would_be_caught(source: str, found: list[str]) -> None:
    assert asked(source) == found


def test_what_an_entry_offers_is_there() -> None:
    for name, found in entries("online", "offline", "finetuning").items():
        assert set(found.offers) <= OPTIONAL, name
        for function in found.offers:
            assert callable(found.function(function)), f"{name}: {function}"
        assert set(found.presets) == set(PRESETS), name


# --- who speaks the command line ---

# A run that was stopped prints the line that goes on with it, which is a command's whatever began the run.
MAY_TYPE = {("training/run.py", "resume_command")}


def flags(source: str, allowed: set[str]) -> list[str]:
    """Texts in which an option stands as it is typed, docstrings included, outside the functions that may have such."""
    found, left = [], [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef) and node.name in allowed:
            continue
        if isinstance(node, ast.Constant) and re.search(r"(?<![\w-])--([a-z]|$)", str(node.value)):
            found.append(str(node.value))
        left += ast.iter_child_nodes(node)
    return found


def test_only_commands_speak_the_command_line() -> None:
    """A user of Python never typed a flag: messages name `capacity`, and the command makes --capacity of it."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        if not where.startswith("cli/"):
            texts = flags(path.read_text(), {function for file, function in MAY_TYPE if file == where})
            found |= {where: texts} if texts else {}
    assert found == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise LegatoError("lower --capacity")', ["lower --capacity"]),
        ('raise LegatoError(f"give --{name}")', ["give --"]),
        ('def f():\n    """As --help says."""', ["As --help says."]),
        ('def g():\n    return "--resume"', []),
        ('raise LegatoError("lower `capacity` -- or wait; well-known --- nothing")', []),
    ],
)
def test_who_types_flags_would_be_caught(source: str, found: list[str]) -> None:
    assert flags(source, {"g"}) == found


# --- what runs nothing but itself ---

READERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def foreign(source: str) -> list[int]:
    """The lines that would unpickle or evaluate what they are given."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            module, _, function = name.rpartition(".")
            reads = module in READERS and function not in ("dump", "dumps")
            allowed = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            if reads or allowed or name in ("eval", "exec"):
                found.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module in READERS:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("part", ["src", "tests", "benchmarks"])
def test_nothing_is_unpickled_or_evaluated(part: str) -> None:
    files = sorted((Path(__file__).parents[1] / part).rglob("*.py"))
    assert files
    assert {str(file): lines for file in files if (lines := foreign(file.read_text()))} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import pickle\npickle.loads(x)", [2]),
        ("import pickle\npickle.Unpickler(x).load()", [2]),
        ("from pickle import loads", [1]),
        ("np.load(x, allow_pickle=True)", [1]),
        ("np.load(x, allow_pickle=y)", [1]),
        ("eval(x)\nexec(x)", [1, 2]),
        ("import pickle\npickle.dumps(x)\nnp.load(x, allow_pickle=False)\nmodel.eval()", []),
    ],
)
def test_unpickling_and_evaluating_would_be_caught(source: str, lines: list[int]) -> None:
    assert foreign(source) == lines


# --- what stays asleep ---


@pytest.mark.parametrize(
    "code",
    [
        "import legato",
        "from legato.cli import main; main(['--help'])",
        "from legato.cli import main; main(['list', 'algorithms'])",
        "from legato.cli import main; main(['data', 'make', '--help'])",
        "from legato.cli import main; main(['train', '--help'])",
        "from legato.cli import main; main(['train', 'srl', '--help'])",
        "from legato.cli import main; main(['finetune', '--help'])",
        "from legato.cli import main; main(['train', 'dt', '--dataset', 'logs.npz', '--help'])",
        "from legato.cli import main; main(['collect', '--help'])",
        "from legato.cli import main; main(['evaluate', '--help'])",
        "from legato.cli import main; main(['compare', '--help'])",
        "from legato.cli import main; main(['play', '--help'])",
        "from legato.cli import main; main(['attention', '--help'])",
        "from legato.cli import main; main(['demo', '--help'])",
        "from legato.cli import main; main(['predict', '--help'])",
        "from legato.cli import main; main(['data', 'import', '--help'])",
        "from legato.cli import main; main(['train', 'srll', '--env', 'Pendulum-v1'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    heavy = (
        "jax",
        "gymnasium",
        "matplotlib",
        "scipy",
        "orbax",
        "tensorboardX",
        "typeguard",
        "unittest.mock",
        "asyncio",
    )
    script = f"import atexit, sys\natexit.register(lambda: print('AWAKE', *set(sys.modules) & set({heavy})))\n{code}"
    done = python(script)
    assert done.returncode == (2 if "srll" in code else 0), done.stderr
    assert done.stdout.splitlines()[-1].split() == ["AWAKE"]


def test_acting_imports_nothing_that_only_trains(tmp_path: Path) -> None:
    """A control loop waits for what `legato.load` imports, and has its memory."""
    configs: dict[str, Any] = {
        "sac": SAC(hidden=4),
        "srl": SRL(hidden=4, model_hidden=(4, 4), horizon=2),
        "dt": DT(layers=1, size=4, heads=1, context=2),
        "ds4": DS4(layers=1, channels=2, order=2, embedding=2),
    }
    spec = Spec(2, (-1.0,), (1.0,))
    for name, config in configs.items():
        policy = algorithm(name).new_policy(config, spec, jax.random.key(0))
        policy_file.save(tmp_path / name, policy, policy_file.Card(name, config, spec, {}))
    idle = ("tyro", "optax", "orbax", "scipy", "gymnasium", "minari", "h5py", "pyarrow", "matplotlib", "tensorboardX")
    code = f"""
import sys
import legato
for name in {list(configs)}:
    policy = legato.load({str(tmp_path)!r} + '/' + name)
    policy.warm_up([1, 2])
    actions, _ = policy.act(policy.begin(), [0.0, 1.0], length=2)
    assert actions.shape == (2, 1)
print('IMPORTED', *{{module.split('.')[0] for module in sys.modules}} & set({idle}))
print(*sorted(module for module in sys.modules if module.startswith('legato.')))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    foreign, own = done.stdout.splitlines()
    assert foreign == "IMPORTED"
    rooms = {module.split(".")[1] for module in own.split()}
    acting = {"algorithms", "data", "errors", "loading", "losses", "models", "nn", "options", "planning", "player"}
    assert rooms <= acting | {"policy", "training"}
    for idle in ("training.online", "training.offline", "planning.shooting", "planning.beam"):
        assert f"legato.{idle} " not in f"{own} "


@pytest.mark.parametrize(("first", "at_once"), [("legato.policy", True), ("jax", False)])
def test_the_thread_that_asks_computes_the_answer(first: str, at_once: bool) -> None:
    """On a CPU, where a decision is waited for: JAX's default is another thread."""
    work = "jax.jit(lambda x: jax.lax.fori_loop(0, 50, lambda i, x: x @ x, x)).lower(x).compile()"
    done = python(f"import {first}, jax\nx = jax.numpy.eye(500)\nwork = {work}\nprint(work(x).is_ready())")
    assert done.stdout.split() == [str(at_once)], done.stderr


# --- what is explained ---


def help_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints for --help, without frames and line breaks."""
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    return " ".join(re.sub(r"[│╭╮╰╯─]|\x1b\[[0-9;]*m", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("algorithm", entries())
def test_every_option_is_explained_in_the_help(
    algorithm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = help_of(["train", algorithm], capsys)
    for config in (entries()[algorithm].config, KINDS[entries()[algorithm].learns]):
        texts = documentation(config)
        assert list(texts) == [field.name for field in dataclasses.fields(config)]
        for name, text in texts.items():
            assert len(text) > 10, f"{config.__name__}.{name} has no docstring"
            assert f"--{name.replace('_', '-').replace('env-options', 'env-option')}" in shown
            assert " ".join(text.split()) in shown, f"{config.__name__}.{name} is not explained by --help"
            for rule in rules(config).get(name, ()):
                told = rf"{re.escape(' '.join(text.split()))} \((default: [^()]*, )?{re.escape(rule.range)}\)"
                assert re.search(told, shown), f"{config.__name__}.{name} does not say {rule.range}"
