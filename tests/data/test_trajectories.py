"""Logged episodes: what is accepted, what is refused and where, and the index computations over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.data import checks, sets
from legato.data import trajectories as logs
from legato.data.bounds import check_bounds
from legato.data.trajectories import About, Trajectories, trajectories
from legato.data.transitions import transitions
from legato.errors import LegatoError, LegatoWarning

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def raw(lengths: list[int], seed: int = 0, terminated: bool = True) -> dict[str, Any]:
    """Ragged episodes whose observation says episode and step; the last step of each ends it."""
    rng, steps = np.random.default_rng(seed), sum(lengths)
    episode, step = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(n) for n in lengths])
    last = np.isin(np.arange(steps), np.cumsum(lengths) - 1)
    return {
        "observations": np.stack([episode, step], axis=1).astype(np.float64),
        "actions": rng.uniform(-1, 1, (steps, 3)),
        "rewards": rng.normal(size=steps),
        "terminations": last if terminated else np.zeros(steps, bool),
        "truncations": np.zeros(steps, bool) if terminated else last,
    }


def made(lengths: list[int], **changes: Any) -> Trajectories:
    return trajectories(**{**raw(lengths), **changes})


@given(lengths)
def test_episodes_end_where_the_flags_say(lengths: list[int]) -> None:
    data = made(lengths)
    assert (len(data), data.steps) == (len(lengths), sum(lengths))
    np.testing.assert_array_equal(data.lengths, lengths)
    for i in range(len(data)):
        np.testing.assert_array_equal(data.observations[data.episode(i)], [[i, t] for t in range(lengths[i])])
    assert {data.observations.dtype, data.actions.dtype} == {np.dtype(np.float32)}


def test_what_ends_with_neither_flag_was_cut() -> None:
    flags = raw([2, 3])
    flags["terminations"][-1] = False
    data = trajectories(**flags)
    np.testing.assert_array_equal(data.lengths, [2, 3])
    np.testing.assert_array_equal(data.terminations, [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(data.truncations, [0, 0, 0, 0, 1])


def test_offsets_part_episodes_that_no_flag_parts() -> None:
    data = made([5], terminations=np.zeros(5), truncations=np.zeros(5), offsets=np.array([0, 2, 5]))
    np.testing.assert_array_equal(data.lengths, [2, 3])
    np.testing.assert_array_equal(data.truncations, [0, 1, 0, 0, 1])


def walks(lengths: list[int]) -> tuple[dict[str, Any], np.ndarray]:
    """Random walks that no flag ends, and the observations after every step."""
    rng = np.random.default_rng(3)
    paths = [np.cumsum(rng.normal(size=(n + 1, 2)) * [1, 1e-3] + [0, 50], axis=0) for n in lengths]
    given = {**raw(lengths), "observations": np.concatenate([path[:-1] for path in paths])}
    given |= {"terminations": np.zeros(sum(lengths)), "truncations": np.zeros(sum(lengths))}
    return given, np.concatenate([path[1:] for path in paths])


@pytest.mark.parametrize("chunk", [2, checks.CHUNK])
@pytest.mark.parametrize("stored", [(np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float32)])
def test_what_the_next_row_contradicts_is_an_end(
    stored: tuple[Any, Any], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHUNK", chunk)
    given, next_observations = walks([3, 1, 4, 2])
    given["observations"], next_observations = (
        given["observations"].astype(stored[0]),
        next_observations.astype(stored[1]),
    )
    with pytest.warns(LegatoWarning, match=r"^data: 3 of 10 steps lead to another observation") as heard:
        data = trajectories(**given, next_observations=next_observations)
    assert len(heard) == 1
    np.testing.assert_array_equal(data.lengths, [3, 1, 4, 2])
    np.testing.assert_array_equal(np.flatnonzero(data.truncations), [2, 3, 7, 9])
    assert not data.terminations.any()
    np.testing.assert_array_equal(data.final_observations, next_observations[[2, 3, 7, 9]].astype(np.float32))
    known = transitions(data)
    led = known.observations[known.next_row]  # every step leads where the file says
    np.testing.assert_allclose(led, next_observations, rtol=0, atol=8 * np.finfo(stored[0]).eps * 300)
    given["terminations"][[2, 7]] = 1  # some ends are marked, and one is parted by hand
    with pytest.warns(LegatoWarning, match=r"^data: 1 of 10 steps"):
        data = trajectories(**given, next_observations=next_observations, offsets=np.array([0, 3, 8, 10]))
    np.testing.assert_array_equal(data.lengths, [3, 1, 4, 2])
    np.testing.assert_array_equal(np.flatnonzero(data.truncations), [3, 9])


def test_nothing_is_said_where_next_observations_agree_or_are_unknown() -> None:
    given, next_observations = walks([8])
    data = trajectories(**given, next_observations=next_observations)
    assert (len(data), data.steps) == (1, 8)
    next_observations[3] = np.nan
    assert len(trajectories(**given, next_observations=next_observations)) == 1


def test_a_log_that_marks_no_end_is_said_to_be_one_episode() -> None:
    given, _ = walks([3, 5])
    with pytest.warns(LegatoWarning, match="data marks no end of an episode: its 8 steps are read as one"):
        assert len(trajectories(**given)) == 1


def test_the_source_is_not_written_to() -> None:
    given = {name: np.asarray(array, bool if "tions" in name and array.dtype == bool else np.float32)
             for name, array in raw([3, 4]).items()}  # fmt: skip
    given["terminations"][-1] = False  # the last step counts as truncated, but not where it came from
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    about = About(low=(-0.5,) * 3, high=(0.5,) * 3)
    data = trajectories(**given, about=about, clip_actions=True)
    assert np.abs(data.actions).max() <= 0.5 < np.abs(given["actions"]).max()
    assert data.truncations[-1]
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def with_value(name: str, index: Any, value: float) -> dict[str, Any]:
    array = np.array(raw([2, 3])[name], np.float64)
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (with_value("observations", (3, 1), np.nan), "the observations of step 1 of episode 1 are not finite"),
        (with_value("rewards", 1, np.inf), "the rewards of step 1 of episode 0 are not finite"),
        (with_value("actions", (4, 0), np.nan), "the actions of step 2 of episode 1 are not finite"),
        ({"observations": np.zeros((0, 2))}, "holds no steps"),
        ({"rewards": np.zeros(4)}, r"5 observations but rewards of shape \(4,\)"),
        ({"rewards": np.zeros((5, 2))}, r"5 observations but rewards of shape \(5, 2\)"),
        ({"rewards": np.array(["a"] * 5)}, r"rewards of shape \(5,\) \(<U1\)"),
        ({"terminations": np.zeros(())}, r"5 observations but terminations of shape \(\)"),
        ({"actions": np.zeros(4)}, r"5 observations but actions of shape \(4,\)"),
        ({"offsets": np.array(["a", "b"])}, "from 0 to the number of steps, 5"),
        ({"final_observations": np.array([[0, 0], [0, np.nan]])}, "after the last step of episode 1 is not finite"),
        ({"next_observations": np.full((5, 2), np.inf)}, "after the last step of episode 0 is not finite"),
        ({"next_observations": np.zeros((5, 3))}, r"observations \(5, 2\) but next ones \(5, 3\)"),
        ({"observations": np.zeros((5, 4, 4))}, r"flat, \[steps, numbers\], not of shape \(5, 4, 4\)"),
        ({"observations": np.array([["a"], ["b"], ["c"], ["d"], ["e"]])}, "are numbers, not <U1"),
        ({"offsets": np.array([0, 3, 3, 5])}, "episode 1 has no steps"),
        ({"offsets": np.array([0, 4])}, "from 0 to the number of steps, 5"),
        ({"offsets": np.array([0, 5])}, "step 1 of episode 0 terminates, but its episode goes on"),
        (
            {"final_observations": np.zeros((3, 2))},
            r"2 episodes of 2 numbers a step, but final observations of shape \(3, 2\)",
        ),
        ({"about": About(low=(-1.0,), high=(1.0,))}, "actions of 3 numbers, but bounds for 1"),
        (
            {**with_value("actions", (2, 1), 1.5), "about": About("logs", low=(-1.0,) * 3, high=(1.0,) * 3)},
            r"logs: 1 of 5 actions lie outside their bounds, first in step 0 of episode 1: number 1 is 1.5, not in "
            r"\[-1, 1\]; `clip_actions`",
        ),
        ({"actions": np.array([0, 1, 2, 3, 1]), "about": About(choices=3)}, "step 1 of episode 1 has action 3 of 3"),
        (
            {"actions": np.array([0, 1, 0.5, 0, 1]), "about": About(choices=3)},
            "step 0 of episode 1 has action 0.5 of 3",
        ),
    ],
)
@pytest.mark.parametrize("chunk", [2, checks.CHUNK])
def test_what_cannot_be_learnt_from_is_refused_with_its_place(
    chunk: int, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHUNK", chunk)
    with pytest.raises(LegatoError, match=words):
        made([2, 3], **changes)


def test_bounds_that_nobody_recorded_are_not_made_up() -> None:
    assert made([2, 3]).about.high == (1.0,) * 3
    wide = made([2, 3], actions=np.full((5, 3), 7.0))
    assert (wide.about.low, wide.about.high) == (None, None)
    with pytest.warns(LegatoWarning, match="^both has no bounds of actions, as one of its parts has none$"):
        both = sets.merge([made([2, 3]), wide], "both")
    assert (both.about.low, both.about.high) == (None, None)


def test_single_episodes() -> None:
    flat = made([2, 4])
    episodes = [
        {name: getattr(flat, name)[flat.episode(i)] for name in raw([1])} for i in range(len(flat))
    ]  # fmt: skip
    same(logs.from_episodes(episodes), flat)
    for i, episode in enumerate(episodes):
        episode["observations"] = np.vstack([episode["observations"], [[i, 100]]])
    found = logs.from_episodes(episodes)
    np.testing.assert_array_equal(found.final_observations, [[0, 100], [1, 100]])
    same(replace(found, final_observations=None), flat)
    episodes[1]["observations"] = episodes[1]["observations"][:-1]
    with pytest.raises(
        LegatoError,
        match=r"n observations or, all of them, n \+ 1; episode 1 of 4 steps has 4, episode 0 of 2 has 3$",
    ):
        logs.from_episodes(episodes)
    episodes[0]["observations"] = episodes[0]["observations"][:1]
    with pytest.raises(LegatoError, match=r"n \+ 1; episode 0 of 2 steps has 1$"):
        logs.from_episodes(episodes)
    with pytest.raises(LegatoError, match="no episodes"):
        logs.from_episodes([])
    episodes = [{**raw([2]), "observations": np.zeros((2, size))} for size in (3, 4)]
    with pytest.raises(LegatoError, match=r"mixes observations of shapes \(3,\) and \(4,\)"):
        logs.from_episodes(episodes)


def same(a: Trajectories, b: Trajectories) -> None:
    for name in ("observations", "actions", "rewards", "terminations", "truncations", "offsets", "final_observations"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=name)
            assert x.dtype == y.dtype, name
    assert a.about == b.about


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3), st.randoms())
def test_members_side_by_side_are_parted(parts: list[list[int]], random: Any) -> None:
    whole = [made(lengths, final_observations=np.full((len(lengths), 2), 7.0)) for lengths in parts]
    steps = [[(member, t) for t in range(data.steps)] for member, data in enumerate(whole)]
    rows = []
    while any(steps):  # in any order that keeps the time of each member
        rows.append(random.choice([left for left in steps if left]).pop(0))
    members = np.array([member for member, _ in rows])

    def column(name: str) -> np.ndarray:
        return np.stack([getattr(whole[member], name)[t] for member, t in rows])

    names = ("observations", "actions", "rewards")
    flags = [column(name) for name in ("terminations", "truncations")]
    flags[0][-1] = False  # the episode recorded last goes on: it is cut
    found = logs.from_members(members, *map(column, names), column("observations") + np.eye(2)[1], *flags, About("all"))
    expected = sets.merge(whole, "all")
    for name in (*names, "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.final_observations, expected.observations[expected.offsets[1:] - 1] + [0, 1])
    assert int(found.truncations.sum()) == 1
    assert found.truncations[found.offsets[1:] - 1][np.cumsum([len(data) for data in whole])[members[-1]] - 1]


# --- returns ---


@given(lengths, st.sampled_from([1.0, 0.9, 0.0]))
def test_returns_to_go_are_what_was_still_to_be_earned(lengths: list[int], gamma: float) -> None:
    data = made(lengths)
    found = logs.returns_to_go(data, gamma)
    for i in range(len(data)):
        r = data.rewards[data.episode(i)].astype(np.float64)
        expected = [sum(gamma**k * x for k, x in enumerate(r[t:])) for t in range(len(r))]
        np.testing.assert_allclose(found[data.episode(i)], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(logs.returns(data)[i], r.sum(), rtol=1e-6, atol=1e-9)


@given(lengths)
def test_delayed_rewards_keep_the_return(lengths: list[int]) -> None:
    data = made(lengths)
    late = logs.delay_rewards(data)
    np.testing.assert_allclose(logs.returns(late), logs.returns(data), rtol=1e-6)
    assert np.count_nonzero(late.rewards) == len(lengths)
    expected = np.repeat(logs.returns(data), lengths)  # still all to come, at every step
    np.testing.assert_allclose(logs.returns_to_go(late), expected, rtol=1e-6)


def test_without_rewards_there_are_no_returns() -> None:
    data = made([2, 3], rewards=None)
    for ask in (logs.returns, logs.returns_to_go, logs.delay_rewards):
        with pytest.raises(LegatoError, match="no rewards: it can be imitated"):
            ask(data)


# --- whole sets ---


@given(lengths, st.data())
def test_selected_episodes_are_whole(lengths: list[int], draw: st.DataObject) -> None:
    ends = np.arange(2 * len(lengths), dtype=np.float32).reshape(-1, 2)
    data = made(lengths, final_observations=ends)
    chosen = draw.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    found = sets.select(data, chosen)
    np.testing.assert_array_equal(found.final_observations, ends[chosen])
    for k, i in enumerate(chosen):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(found, name)[found.episode(k)], getattr(data, name)[data.episode(i)])


def test_the_best_fill_their_share_of_the_steps() -> None:
    rewards = np.repeat([1.0, 9.0, 3.0, 5.0], [4, 2, 3, 1])  # returns 4, 18, 9, 5
    data = made([4, 2, 3, 1], rewards=rewards)
    kept = {fraction: sets.top(data, fraction).observations[:, 0] for fraction in (0.1, 0.2, 0.5, 0.6, 1.0)}
    assert {fraction: sorted(set(found)) for fraction, found in kept.items()} == {
        0.1: [1],  # one at least
        0.2: [1],
        0.5: [1, 2],
        0.6: [1, 2, 3],
        1.0: [0, 1, 2, 3],
    }
    for fraction in (0.0, 1.5):
        with pytest.raises(LegatoError, match="fraction"):
            sets.top(data, fraction)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=9), st.floats(0.01, 0.99))
def test_split_and_merge_keep_every_episode(lengths: list[int], fraction: float) -> None:
    data = made(lengths)
    if not 0 < round(fraction * len(data)) < len(data):
        with pytest.raises(LegatoError, match="one side"):
            sets.split(data, fraction)
        return
    a, b = sets.split(data, fraction, seed=3)
    assert len(a) == round(fraction * len(data))
    both = sets.merge([a, b], "data")
    order = [int(both.observations[both.offsets[i], 0]) for i in range(len(both))]
    assert sorted(order) == list(range(len(data)))
    same(both, sets.select(data, order))


def test_merging_what_does_not_match_is_refused() -> None:
    data = made([2, 3])
    for other, words in (
        (made([2], observations=np.zeros((2, 5))), "numbers per observation: 2 and 5"),
        (made([2], actions=np.zeros((2, 4))), r"numbers per action: \(3,\) and \(4,\)"),
        (made([2], rewards=None), "rewards: True and False"),
    ):
        with pytest.raises(LegatoError, match=words):
            sets.merge([data, other], "both")


def test_a_number_that_is_in_degrees_in_one_set_and_in_radians_in_another_is_asked_about() -> None:
    one = made([60, 60])
    angles = np.random.default_rng(0).uniform(-1, 1, (120, one.observations.shape[1])).astype(np.float32)
    one = replace(one, observations=angles, about=replace(one.about, name="radians"))
    other = replace(
        one, observations=angles * np.float32([1, 57.3, 1][: angles.shape[1]]), about=replace(one.about, name="degrees")
    )
    said = r"^observations number 1 deviates by 0.\d+ in radians, 3\d.* in degrees: are they in one unit\?$"
    with pytest.warns(LegatoWarning, match=said):
        sets.merge([one, other], "both")
    sets.merge([one, replace(one, observations=2 * angles)], "both")  # no word


@pytest.mark.parametrize(
    ("bounds", "largest", "warned"),
    [(0.03, 0.02, True), (1.0, 0.5, False), (1.0, 1.0, True), (2.0, 1.5, False), (2.00001, 1.5, False)],
)
def test_bounds_of_the_file_that_are_not_the_environments_are_said(bounds: float, largest: float, warned: bool) -> None:
    actions = np.linspace(-largest, largest, 15).astype(np.float32).reshape(5, 3)
    data = made([5], actions=actions, about=About("log", None, None, (-bounds,) * 3, (bounds,) * 3))
    if warned:
        said = f"^log bounds its actions by -{bounds:g} and {bounds:g}, the environment by -2 and 2, which count"
        with pytest.warns(LegatoWarning, match=said):
            found = check_bounds(data, (-2.0,) * 3, (2.0,) * 3)
    else:
        found = check_bounds(data, (-2.0,) * 3, (2.0,) * 3)
    assert found.about.low == (-2.0,) * 3
    np.testing.assert_array_equal(found.actions, actions)


def test_a_merged_set_knows_only_what_its_parts_share() -> None:
    parts = [
        made([2], about=About("a", "Hopper-v4", (0.0, 1.0), (-1.0,) * 3, (1.0,) * 3)),
        made([2], about=About("b", "Walker2d-v4", (0.0, 2.0), (-2.0,) * 3, (1.0,) * 3)),
    ]
    with (
        pytest.warns(LegatoWarning, match="^a bounds its actions by -1 and 1, b by -2 and 1: the widest are kept$"),
        pytest.warns(
            LegatoWarning, match="^ab names no environment, as its parts name several: Hopper-v4, Walker2d-v4$"
        ),
    ):
        assert sets.merge(parts, "ab").about == About("ab", None, None, (-2.0,) * 3, (1.0,) * 3)
    assert sets.merge([parts[0], parts[0]], "aa").about == replace(parts[0].about, name="aa")
