"""Environments at the door: what is taken, what is refused and in which words, and what the rollout gets from them."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import error, spaces
from gymnasium.envs.registration import EnvSpec
from tests.tiny import SRL4, TIMES, Diary, environments

from legato import api
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig as Asked
from legato.envs import check_options, describe, episode_limit, known_ids, make, make_vec, resolve_environment
from legato.envs.checked import Checked
from legato.envs.environments import GymnasiumEnvironments, seconds_per_step
from legato.errors import LegatoError, LegatoWarning
from legato.training import online

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Plain(gymnasium.Env):
    """Any two spaces; observes and rewards what it is told to."""

    def __init__(self, observation: spaces.Space = BOX, action: spaces.Space = BOX, **tells: Any):
        self.observation_space, self.action_space = observation, action
        self.tells = tells  # of a step's number: its observation, its reward
        self.number = 0

    def observe(self) -> Any:
        return self.tells.get("observations", {}).get(self.number, np.zeros(self.observation_space.shape or ()))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.number = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict]:
        self.number += 1
        return self.observe(), self.tells.get("rewards", {}).get(self.number, 0.0), False, False, {}


def refusal(problem: pytest.ExceptionInfo[LegatoError]) -> str:
    """The message of an error, which is one line."""
    message = str(problem.value)
    assert "\n" not in message
    return message


# --- describe ---


def test_bytes_from_0_to_255_in_two_dimensions_or_more_are_images() -> None:
    """Where these are asked for; other bytes are numbers, as masks of 0 and 1 and the memory of a console are."""
    for shape, high, images in (((4, 5), 255, True), ((4, 5, 3), 255, True), ((4, 5), 1, False), ((128,), 255, False)):
        environment = Plain(observation=spaces.Box(0, high, shape, np.uint8))
        found = describe(environment, "W-v1", images=True)
        assert (found.images, found.shape) == (images, shape if images else None)
        assert found.observation_size == np.prod(shape)
        assert not describe(environment, "W-v1").images


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 5)), np.full((4, 5), np.nan), np.zeros((4, 5), np.int64), np.ma.masked_all((4, 5), np.uint8)],
    ids=["floats", "nan", "int64", "masked"],
)
def test_an_image_of_another_type_is_refused_where_it_comes(wrong: np.ndarray) -> None:
    """It is not cast: of numbers from 0 to 1 nothing would be left."""
    right = {i: np.zeros((4, 5), np.uint8) for i in range(3)}
    plain = Plain(observation=spaces.Box(0, 255, (4, 5), np.uint8), observations={**right, 2: wrong})
    environment = Checked(plain, "W-v1")
    assert environment.reset()[0].dtype == np.uint8
    environment.step(np.zeros(3))
    with pytest.raises(LegatoError) as problem:
        environment.step(np.zeros(3))
    assert refusal(problem).startswith("environment 'W-v1' returned an image of type ")
    assert "at step 2 of an episode" in refusal(problem)


def test_a_box_is_described_in_its_own_units() -> None:
    action = spaces.Box(np.array([-3.0, 0.0]), np.array([7.0, 0.5]), dtype=np.float64)
    assert describe(Plain(action=action), "W") == Spec(3, (-3.0, 0.0), (7.0, 0.5))
    assert describe(Plain(action=action), "W").action_size == 2


@pytest.mark.parametrize(("shape", "size"), [((), 1), ((1,), 1), ((2, 3), 6), ((4, 1, 2), 8)])
def test_observations_of_any_shape_are_flat(shape: tuple[int, ...], size: int) -> None:
    assert describe(Plain(spaces.Box(-np.inf, np.inf, shape)), "W").observation_size == size


OTHERS = {
    "discrete": spaces.Discrete(3),
    "dict": spaces.Dict({"a": BOX}),
    "tuple": spaces.Tuple([BOX, BOX]),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(4),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_spaces_are_refused_by_kind(kind: str) -> None:
    with pytest.raises(LegatoError) as problem:
        describe(Plain(observation=OTHERS[kind]), "W-v1", user="srl")
    expected = f"{kind} observations of 'W-v1' are not supported; wrap it in gymnasium.wrappers.FlattenObservation, "
    expected += "in a function that makes it"
    assert refusal(problem) == expected
    with pytest.raises(LegatoError) as problem:
        describe(Plain(action=OTHERS[kind]), "W-v1")
    expected = f"{kind} actions of 'W-v1' are not supported; no algorithm supports it yet"
    assert refusal(problem) == expected


class Counter(Plain):
    """Rewards the action that it was given."""

    def __init__(self, start: int):
        super().__init__(action=spaces.Discrete(4, start=start))

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), float(action), False, False, {}


def test_a_choice_is_a_vector_of_one_number_counted_from_zero() -> None:
    assert describe(Counter(7), "C-v0", discrete=True) == Spec(3, (0.0,), (3.0,), 4)
    members = GymnasiumEnvironments("C-v0", [Counter(7), Counter(7)])
    _, rewards, _, _ = members.step(np.arange(2), np.array([[0.0], [2.9999]], np.float32))
    assert rewards.tolist() == [7, 10]


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_actions_that_are_no_vector_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LegatoError) as problem:
        describe(Plain(action=spaces.Box(-1.0, 1.0, shape)), "W-v1")
    assert f"actions of shape {shape} of 'W-v1' are not supported" in refusal(problem)


def test_whole_numbered_actions_are_refused() -> None:
    with pytest.raises(LegatoError) as problem:
        describe(Plain(action=spaces.Box(0, 5, (2,), np.int32)), "W-v1")
    assert "actions of type int32 of 'W-v1' are not supported" in refusal(problem)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ([-1.0, -np.inf], [1.0, 1.0], r"action[1] of 'W-v1' has no finite bounds (-inf to 1.0)"),
        ([-1.0, -1.0], [np.inf, 1.0], r"action[0] of 'W-v1' has no finite bounds (-1.0 to inf)"),
    ],
)
def test_actions_without_bounds_are_refused_with_the_place(low: list[float], high: list[float], words: str) -> None:
    boundless = Plain(action=spaces.Box(np.array(low), np.array(high), dtype=np.float64))
    with pytest.raises(LegatoError) as problem:
        describe(boundless, "W-v1")
    assert refusal(problem).startswith(words)
    assert "gymnasium.wrappers.TransformAction with a finite Box" in refusal(problem)
    wrapped = gymnasium.wrappers.TransformAction(boundless, lambda a: a, BOX)
    assert describe(wrapped, "W-v1") == Spec(3, (-1.0,) * 3, (1.0,) * 3)


# --- make ---


@pytest.mark.parametrize(
    ("name", "spec", "limit", "seconds"),
    [
        ("Pendulum-v1", Spec(3, (-2.0,), (2.0,)), 200, 0.05),
        ("Hopper-v4", Spec(11, (-1.0,) * 3, (1.0,) * 3), 1000, 0.008),
        ("Hopper-v5", Spec(11, (-1.0,) * 3, (1.0,) * 3), 1000, 0.008),
        ("InvertedPendulum-v5", Spec(4, (-3.0,), (3.0,)), 1000, 0.04),
        ("LunarLanderContinuous-v3", Spec(8, (-1.0,) * 2, (1.0,) * 2), 1000, 0.02),
        ("MountainCarContinuous-v0", Spec(2, (-1.0,), (1.0,)), 999, None),
    ],
)
def test_the_papers_environments(name: str, spec: Spec, limit: int, seconds: float | None) -> None:
    members = make_vec(name, 2)
    assert isinstance(members, GymnasiumEnvironments)
    assert (members.name, members.count, members.episode_limit, members.seeded) == (name, 2, limit, True)
    assert members.step_seconds == (None if seconds is None else pytest.approx(seconds))
    assert describe(members.members[0], name) == spec
    index = np.arange(2)
    first = members.reset(index, np.array([5, 5]))
    assert first.shape == (2, spec.observation_size)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first[0], first[1])
    observation, reward, terminated, truncated = members.step(index, np.full((2, spec.action_size), 0.5, np.float32))
    assert (observation.dtype, reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.float32, bool, bool)
    np.testing.assert_array_equal(observation[0], observation[1])
    assert not np.array_equal(observation, first)
    assert not np.array_equal(members.reset(index[:1], np.array([6]))[0], first[0])
    members.close()


@pytest.mark.parametrize(
    ("dt", "seconds"),
    [
        (0.5, 0.5),
        (np.float32(0.25), 0.25),
        (2, 2.0),
        (0, None),
        (-1.0, None),
        (np.nan, None),
        (True, None),
        ("1", None),
    ],
)
def test_the_seconds_of_a_step_are_the_attribute_dt(dt: Any, seconds: float | None) -> None:
    found = Plain()
    assert seconds_per_step(found) is None
    found.dt = dt  # type: ignore[attr-defined]
    assert seconds_per_step(found) == seconds


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Hoper-v5", "unknown environment 'Hoper-v5'; did you mean 'Hopper-v5'?"),
        ("pendulum-v1", "unknown environment 'pendulum-v1'; did you mean 'Pendulum-v1'?"),
        ("Pendulum-v9", "unknown environment 'Pendulum-v9'; did you mean 'Pendulum-v1'?"),
        ("Qqqq-v0", "unknown environment 'Qqqq-v0'; see 'legato list envs'"),
        ("Tank-v0", "unknown environment 'Tank-v0'; did you mean "),
        ("Pendulum-v0", "environment 'Pendulum-v0': Environment version v0 for `Pendulum` is deprecated. Please use"),
        ("not a name!", "environment 'not a name!': Malformed environment ID"),
        ("", "environment '': Malformed environment ID"),
        ("nowhere:Some-v0", "environment 'nowhere:Some-v0' is not made: its module is imported only when you name it"),
        ("os:Pendulum-v7", "environment 'os:Pendulum-v7' is not made"),
        ("os:json:Pendulum-v1", "environment 'os:json:Pendulum-v1' is not made"),
        ("Hopper-v3", "environment 'Hopper-v3' needs a package that is missing: The mujoco v2 and v3 based"),
    ],
)
def test_an_environment_that_cannot_be_made_is_named(name: str, words: str) -> None:
    with pytest.raises(LegatoError) as problem:
        make(name)
    assert refusal(problem).startswith(words)


@pytest.mark.parametrize(("name", "own"), [("Tank-v0", True), ("Qqqq-v0", True), ("Hoper-v5", False)])
def test_a_name_far_from_every_known_one_may_be_of_a_module(name: str, own: bool) -> None:
    with pytest.raises(LegatoError) as problem:
        make(name)
    hint = f"; one that a module of yours registers is 'my_module:{name}'"
    assert refusal(problem).endswith(hint) is own


MODULE = """
import gymnasium
from tests.tiny import Diary
gymnasium.register("Beside-v0", entry_point="sibling:Diary", max_episode_steps=9)
class Inner:
    make = staticmethod(lambda **options: Diary(**options))
"""


def test_a_module_that_the_user_names_is_found_beside_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_me.py").write_text(MODULE)
    (tmp_path / "sibling.py").write_text("from tests.tiny import Diary")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    places = [place for place in sys.path if place]
    monkeypatch.setattr(sys, "path", places.copy())
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry.copy())
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    for module in ("beside_me", "sibling", "broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(LegatoError, match="pass `env=beside_me:Beside-v0`"):
        make("beside_me:Beside-v0")
    assert "beside_me" not in sys.modules
    for name in ("beside_me:Beside-v0", "beside_me:Inner.make"):
        assert resolve_environment(name) == name
        assert isinstance(make(name).unwrapped, Diary)
    assert sys.path == places
    for name, words in {
        "beside_me:Besid-v0": "unknown environment 'beside_me:Besid-v0'; did you mean 'beside_me:Beside-v0'?",
        "beside_me:MODULE": "unknown environment 'beside_me:MODULE'",
        "broken:A-v0": "environment 'broken:A-v0': importing 'broken' failed: ZeroDivisionError: division by zero",
        "nowhere:A-v0": "environment 'nowhere:A-v0': there is no nowhere.py in this folder, and no installed module",
        "beside_me:a:b": "unknown environment 'beside_me:a:b'",
    }.items():
        with pytest.raises(LegatoError) as problem:
            resolve_environment(name)
        assert refusal(problem).startswith(words)


@pytest.mark.parametrize(
    ("module", "name", "extra"), [("mujoco", "Hopper-v5", "mujoco"), ("Box2D", "LunarLanderContinuous-v3", "box2d")]
)
def test_a_missing_package_is_named_by_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    for loaded in list(sys.modules):
        if loaded.startswith((f"{module}.", f"gymnasium.envs.{extra}")):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(LegatoError) as problem:
        make(name)
    assert refusal(problem) == f"environment '{name}' needs a package that is missing: pip install 'legato[{extra}]'"


def test_a_renderer_that_is_missing_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)  # type: ignore[arg-type]
    environment = make("Pendulum-v1", render_mode="rgb_array")
    environment.reset(seed=0)
    with pytest.raises(LegatoError) as problem:
        environment.render()
    assert refusal(problem).endswith("pip install 'legato[classic]'")


def test_any_other_trouble_of_gymnasium_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble(*args: Any, **kwargs: Any) -> None:
        raise error.InvalidAction("two\n  lines")

    monkeypatch.setattr(gymnasium, "make", trouble)
    with pytest.raises(LegatoError) as problem:
        make("Pendulum-v1")
    assert refusal(problem) == "environment 'Pendulum-v1': two lines"


def test_a_module_that_is_loaded_needs_no_naming() -> None:
    assert make("os:Pendulum-v1").spec.id == "Pendulum-v1"


def test_known_ids_are_what_make_takes() -> None:
    ids = known_ids()
    assert ids == sorted(ids)
    assert {"Pendulum-v1", "Hopper-v5", "LunarLanderContinuous-v3"} <= set(ids)


class Old(Plain):
    """Of Gym's older interface, in one of three ways."""

    def __init__(self, kind: str):
        super().__init__(spaces.Box(-1.0, 1.0, (2,), np.float32))
        self.kind = kind
        if kind == "unseeded":
            self.reset = lambda: (self.observe(), {})  # type: ignore[method-assign]

    def reset(self, **options: Any) -> Any:
        return self.observe() if self.kind == "reset" else (self.observe(), {})

    def step(self, action: np.ndarray) -> Any:
        return (self.observe(), 0.0, False, {}) if self.kind == "step" else 1 / 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("reset", "environment 'Old-v0' is of an older interface: Gymnasium's reset returns (observation, info)"),
        ("unseeded", "environment 'Old-v0' is of an older interface: its reset takes no seed"),
        (
            "step",
            "environment 'Old-v0' is of an older interface: Gymnasium's step returns (observation, reward, termin",
        ),
        ("broken", "environment 'Old-v0' failed at step 1 of an episode: ZeroDivisionError: division by zero"),
    ],
)
def test_an_older_interface_is_said_before_anything_is_made(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gymnasium.registry, "Old-v0", EnvSpec("Old-v0", lambda: Old(kind), max_episode_steps=9))
    with pytest.raises(LegatoError) as problem:
        api.train("sac", "Old-v0", out=tmp_path / "run", quiet=True)
    assert refusal(problem).startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_a_constructor_misses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def wants(port: int) -> Plain:
        return Plain()

    monkeypatch.setitem(gymnasium.registry, "Port-v0", EnvSpec("Port-v0", wants))
    with pytest.raises(LegatoError) as problem:
        make("Port-v0")
    assert "missing 1 required positional argument: 'port'" in refusal(problem)
    assert refusal(problem).endswith("; give its arguments with `env_options`")
    make(Asked("Port-v0", check_options({"port": 7})))


@pytest.mark.parametrize("wrong", [(7,), ("A-v0", [1]), ("A-v0", {}, 0), ("A-v0", {}, 1.5), ("A-v0", {}, "9")])
def test_what_is_no_environment_is_one_line(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(LegatoError) as problem:
        Asked(*wrong)
    refusal(problem)


def test_the_nearest_limit_counts() -> None:
    limited = gymnasium.wrappers.TimeLimit
    assert [episode_limit(e) for e in (Plain(), limited(Plain(), 7), limited(limited(Plain(), 5), 7))] == [None, 7, 5]
    assert episode_limit(make("Pendulum-v1")) == 200
    assert episode_limit(make(Asked("Pendulum-v1", {}, 300))) == 300


# --- what an environment may not do ---


def test_observations_become_flat_float32() -> None:
    space = spaces.Box(-10.0, 10.0, (2, 2), np.float64)
    first = np.array([[1.0, 2.0], [3.0, 1 / 3]])
    observation, _ = Checked(Plain(space, observations={0: first}), "W-v1").reset()
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, np.array([1, 2, 3, 1 / 3], np.float32))


def play_until(environment: Plain, step: int) -> None:
    checked = Checked(environment, "W-v1")
    checked.reset()
    for _ in range(step):
        checked.step(np.zeros(3))


NAN_AT_2 = np.array([0.0, 0.0, np.nan])


@pytest.mark.parametrize(
    ("tells", "words"),
    [
        ({"observations": {0: NAN_AT_2}}, "'W-v1' returned nan in observation[2] at step 0 of an episode"),
        ({"observations": {3: NAN_AT_2}}, "'W-v1' returned nan in observation[2] at step 3 of an episode"),
        ({"observations": {1: np.array([0, -np.inf, 0])}}, "'W-v1' returned -inf in observation[1] at step 1"),
        ({"observations": {1: np.array([1e300, 0, 0])}}, "'W-v1' returned inf in observation[0] at step 1"),
        ({"rewards": {2: np.nan}}, "'W-v1' returned reward nan at step 2 of an episode"),
        ({"rewards": {2: np.inf}}, "'W-v1' returned reward inf at step 2 of an episode"),
        ({"rewards": {1: 1e300}}, "'W-v1' returned reward 1e+300 at step 1 of an episode"),
        ({"rewards": {1: None}}, "'W-v1' returned reward None at step 1 of an episode"),
        ({"rewards": {1: np.zeros(2)}}, "'W-v1' returned reward [0. 0.] at step 1 of an episode"),
        (
            {"observations": {2: np.zeros(4)}},
            "'W-v1' changed its observation from shape (3,) to (4,) at step 2 of an episode",
        ),
        ({"observations": {0: np.zeros((3, 1))}}, "'W-v1' changed its observation from shape (3,) to (3, 1) at step 0"),
        ({"observations": {1: {"a": 1}}}, "'W-v1' returned an observation that is no array of numbers at step 1"),
        ({"observations": {1: [[1, 2], [3]]}}, "'W-v1' returned an observation that is no array of numbers at step 1"),
    ],
)
def test_bad_data_is_refused_with_the_place(tells: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError) as problem:
        play_until(Plain(**tells), 4)
    assert words in refusal(problem)


def test_steps_are_counted_anew_in_each_episode() -> None:
    checked = Checked(Plain(rewards={2: np.nan}), "W-v1")
    for _ in range(3):
        checked.reset()
        checked.step(np.zeros(3))
    with pytest.raises(LegatoError, match="at step 2 of"):
        checked.step(np.zeros(3))


# --- many side by side ---


def test_any_subset_steps_and_nothing_resets_by_itself() -> None:
    diaries = [Diary(limit=2), Diary(), Diary()]
    members = environments(*diaries)
    members.reset(np.arange(3), np.array([1, 2, 3]))
    members.step(np.array([2]), np.full((1, 4), 2.0))
    *_, truncated = members.step(np.array([0, 2]), np.array([[5.0] * 4, [6.0] * 4]))
    assert not truncated.any()
    *_, terminated, truncated = members.step(np.array([0]), np.array([[7.0] * 4]))
    assert (terminated[0], truncated[0]) == (False, True)
    assert [[float(a[0]) for a in d.episodes[0]] for d in diaries] == [[5, 7], [], [2, 6]]
    assert [len(d.episodes) for d in diaries] == [1, 1, 1]
    assert [d.seeds for d in diaries] == [[1], [2], [3]]
    members.reset(np.array([0, 2]), np.array([8, 9]))
    assert [d.seeds for d in diaries] == [[1, 8], [2], [3, 9]]


def test_actions_lie_in_the_box_in_its_own_type() -> None:
    """0.1 as float32 lies above 0.1 as float64, and 3.2 as float64 above 3.2 as float16."""

    class Strict(Plain):
        def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict]:
            assert self.action_space.contains(action), action
            return super().step(action)

    for kind in (np.float16, np.float32, np.float64):
        box = spaces.Box(np.array([-0.1, 3.1], kind), np.array([0.1, 3.2], kind), dtype=kind)
        members = GymnasiumEnvironments("W", [Strict(action=box)])
        spec = describe(members.members[0], "W")
        members.reset(np.arange(1), np.arange(1))
        for bounds in (spec.low, spec.high):
            members.step(np.arange(1), np.array([bounds], np.float32))


def test_actions_have_the_type_that_the_environment_asks_for() -> None:
    seen = []

    class Picky(Plain):
        def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict]:
            seen.append(action.dtype)
            return super().step(action)

    double = spaces.Box(-1.0, 1.0, (3,), np.float64)
    members = GymnasiumEnvironments("W", [Picky(action=double)])
    members.reset(np.arange(1), np.arange(1))
    members.step(np.arange(1), np.zeros((1, 3), np.float32))
    assert seen == [np.float64]


# --- EnvPool ---


def test_envpool_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in list(sys.modules):
        if loaded.startswith("envpool"):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "envpool", None)  # type: ignore[arg-type]
    with pytest.raises(LegatoError) as problem:
        make_vec("Pendulum-v1", 2, "envpool")
    assert refusal(problem) == "EnvPool is not installed: pip install 'legato[envpool]'"


@pytest.fixture
def envpool() -> Iterator[types.ModuleType]:
    """EnvPool, or the test is skipped."""
    yield pytest.importorskip("envpool")


@pytest.mark.parametrize("name", ["Pendulum-v1", "Hopper-v4"])
def test_envpool_is_the_same_world(envpool: types.ModuleType, name: str) -> None:
    """Shapes, limits and step lengths are Gymnasium's; any subset steps; seeds are the caller's."""
    ours, theirs = make_vec(name, 3, "envpool"), make_vec(name, 1)
    assert (ours.count, ours.seeded) == (3, False)
    assert (ours.episode_limit, ours.step_seconds) == (theirs.episode_limit, theirs.step_seconds)
    spec = describe(theirs.members[0], name)  # type: ignore[attr-defined]
    everyone = np.arange(3)
    first = ours.reset(everyone, np.array([1, 2, 3]))
    assert (first.shape, first.dtype) == ((3, spec.observation_size), np.float32)
    assert len(np.unique(first, axis=0)) == 3
    some = np.array([2, 0])
    observation, reward, terminated, truncated = ours.step(some, np.zeros((2, spec.action_size), np.float32))
    assert (observation.shape, reward.shape) == ((2, spec.observation_size), (2,))
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
    assert np.abs(observation - first[some]).max() < 0.5  # answers come in the order of the question
    assert np.abs(observation - first[some[::-1]]).max() > np.abs(observation - first[some]).max()
    again, other = make_vec(name, 3, "envpool"), make_vec(name, 3, "envpool")
    np.testing.assert_array_equal(again.reset(everyone, np.array([1, 2, 3])), first)
    assert not np.array_equal(other.reset(everyone, np.array([4, 5, 6])), first)
    for members in (ours, theirs, again, other):
        members.close()


def test_envpool_truncates_and_starts_anew(envpool: types.ModuleType) -> None:
    members = make_vec("Pendulum-v1", 2, "envpool")
    members.reset(np.arange(2), np.array([1, 2]))
    for step in range(1, 201):
        *_, terminated, truncated = members.step(np.arange(2), np.zeros((2, 1), np.float32))
        assert not terminated.any()
        assert truncated.all() == (step == 200)
    first = members.reset(np.array([1]), np.array([7]))
    second = members.step(np.array([1]), np.zeros((1, 1), np.float32))
    assert not second[3].any()
    assert np.abs(second[0] - first).max() < 1.0
    members.close()


@pytest.mark.parametrize("name", ["Pendulum-v1", "Hopper-v4"])
def test_envpool_trains_and_resumes(envpool: types.ModuleType, tmp_path: Path, name: str) -> None:
    path = tmp_path / "run"
    options: dict[str, Any] = {**SRL4, **TIMES, "steps": 400, "seeds": 2, "environments": 2, "quiet": True}
    api.train("srl", name, backend="envpool", out=path, **options)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"steps": 400', '"steps": 600'))
    with pytest.warns(LegatoWarning, match="its settings changed since the run began"):
        online.resume(path, quiet=True)
    rows = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()[1:]]
    assert {int(row[0]) // 150 for row in rows} == {1, 2, 3, 4}
    assert sum(int(row[4]) for row in rows) > 0  # episodes ended
    for seed in (0, 1):
        policy = api.load(path, seed)
        actions, _ = policy.act(policy.begin(), np.zeros(policy.spec.observation_size), 4)
        assert np.isfinite(actions).all()


def test_envpool_does_not_know_every_environment(envpool: types.ModuleType) -> None:
    with pytest.raises(LegatoError, match="unknown EnvPool environment 'Hoper-v4'; did you mean 'Hopper-v4'"):
        make_vec("Hoper-v4", 1, "envpool")


def test_robots_are_looked_for_where_they_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as if it were not installed
    with pytest.raises(LegatoError) as problem:
        make("AdroitHandDoor-v1")
    assert refusal(problem) == (
        "environment 'AdroitHandDoor-v1' needs a package that is missing: pip install 'legato[robotics]'"
    )


def test_what_mujoco_says_of_models_that_gymnasium_brings_is_not_the_users_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """HalfCheetah-v4's has a deprecated attribute; MuJoCo would say so, and begin a file where the user is."""
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    make("HalfCheetah-v4").close()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("low", "high"), [(-3.4e38, 3.4e38), (0.0, 1e31), (-1e300, 1.0)])
def test_bounds_that_bound_nothing_are_refused(low: float, high: float) -> None:
    class Wide(gymnasium.Env):
        observation_space = spaces.Box(-1.0, 1.0, (2,))
        action_space = spaces.Box(np.array([-1.0, low]), np.array([1.0, high]), dtype=np.float64)

    with pytest.raises(LegatoError, match=r"action\[1\] of 'Wide-v0' is bounded by .* which is no bound"):
        describe(Wide(), "Wide-v0")


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_spaces_of_no_numbers_are_refused(space: str) -> None:
    class Empty(gymnasium.Env):
        observation_space = spaces.Box(-1.0, 1.0, (2,))
        action_space = spaces.Box(-1.0, 1.0, (1,))

    setattr(Empty, space, spaces.Box(-1.0, 1.0, (0,)))
    with pytest.raises(LegatoError, match="of no numbers of 'Empty-v0' are not supported"):
        describe(Empty(), "Empty-v0")


def test_what_an_environment_raises_on_its_way_is_one_line() -> None:
    class Motor(gymnasium.Env):
        observation_space = spaces.Box(-1.0, 1.0, (1,))
        action_space = spaces.Box(-1.0, 1.0, (1,))
        time = 0

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            self.time += 1
            if self.time == 3:
                raise RuntimeError("motor on fire")
            return np.zeros(1, np.float32), 0.0, False, False, {}

    motor = Checked(Motor(), "Motor-v0")
    motor.reset()
    for _ in range(2):
        motor.step(np.zeros(1))
    with pytest.raises(LegatoError) as problem:
        motor.step(np.zeros(1))
    assert str(problem.value) == "environment 'Motor-v0' failed at step 3 of an episode: RuntimeError: motor on fire"


@pytest.mark.parametrize("good", [0, 1])
def test_what_an_environment_raises_in_a_reset_is_one_line(good: int) -> None:
    """Also in the first one of an instance, of which many are made after one was tried."""

    class Motor(Plain):
        resets = 0

        def reset(self, **kwargs: Any) -> Any:
            self.resets += 1
            if self.resets > good:
                raise RuntimeError("no way back")
            return super().reset(**kwargs)

    motor = Checked(Motor(), "Motor-v0")
    for _ in range(good):
        motor.reset()
    with pytest.raises(LegatoError) as problem:
        motor.reset()
    assert str(problem.value) == "environment 'Motor-v0' failed in its reset: RuntimeError: no way back"


def test_an_environment_may_not_change_its_space_on_its_way() -> None:
    plain = Plain(observations={1: np.zeros(4)})
    checked = Checked(plain, "W-v1")
    checked.reset()
    plain.observation_space = spaces.Box(-1.0, 1.0, (4,))
    with pytest.raises(LegatoError, match=r"changed its observation from shape \(3,\) to \(4,\) at step 1"):
        checked.step(np.zeros(3))


def test_a_module_in_the_working_directory_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gymnasium_robotics.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gymnasium_robotics", raising=False)
    with pytest.raises(LegatoError):
        make("AdroitHandDoor-v1")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("option", ["render_mode", "vectorization_mode", "max_episode_steps"])
def test_what_is_no_option_of_an_environment_is_refused_from_files_too(option: str) -> None:
    with pytest.raises(LegatoError, match=f"'{option}' is no option of the environment 'Pendulum-v1'"):
        make(Asked("Pendulum-v1", {option: 5}))
