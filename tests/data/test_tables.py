"""Logs with named columns: what is read is what was written, and what does not fit is one line that names the place."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from legato.data import importing, storage
from legato.data.tables import Columns, from_table
from legato.data.tables.columns import seconds
from legato.errors import LegatoError, LegatoWarning

RNG = np.random.default_rng(0)
LOG: dict[str, Any] = {
    "run": np.repeat(["a", "b", "c"], (4, 3, 5)),
    "t": np.concatenate([0.1 * np.arange(n) + 100 * i for i, n in enumerate((4, 3, 5))]),
    "level": RNG.normal(size=12),
    "flow": RNG.normal(size=12),
    "valve": RNG.uniform(0, 5, 12),
    "paid": RNG.normal(size=12),
    "burst": np.arange(12) == 6,
}
COLUMNS = Columns(("level", "flow"), ("valve",), "paid", "burst", "run", time="t", low=(0.0,), high=(5.0,))


def csv(path: Path, table: dict[str, Any], mark: str = ",", header: bool = True) -> Path:
    rows = [mark.join(str(cell) for cell in row) for row in zip(*table.values(), strict=True)]
    path.write_text("\n".join([mark.join(table)] * header + rows) + "\n")
    return path


def parquet(path: Path, table: dict[str, Any], rows: int = 5) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=rows)
    return path


def same(data: Any) -> None:
    seen = np.stack([LOG["level"], LOG["flow"]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(data.observations, seen)
    np.testing.assert_array_equal(data.actions[:, 0], LOG["valve"].astype(np.float32))
    np.testing.assert_array_equal(data.rewards, LOG["paid"].astype(np.float32))
    np.testing.assert_array_equal(data.offsets, [0, 4, 7, 12])
    np.testing.assert_array_equal(np.flatnonzero(data.terminations), [6])
    np.testing.assert_array_equal(np.flatnonzero(data.truncations), [3, 11])
    assert (data.about.low, data.about.high, data.final_observations) == ((0.0,), (5.0,), None)


def test_a_table_in_memory_is_read() -> None:
    data, said = from_table(LOG, COLUMNS)
    same(data)
    assert "a step is 0.1 s" in said and "an episode begins where 'run' changes" in said


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_file_is_read(mark: str, tmp_path: Path) -> None:
    same(importing.read(csv(tmp_path / "log.csv", LOG, mark), COLUMNS)[0])


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    same(importing.read(parquet(tmp_path / "log.parquet", LOG), COLUMNS)[0])


def test_a_table_of_arrow_is_read() -> None:
    same(from_table(pytest.importorskip("pyarrow").table(LOG), COLUMNS)[0])


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    numbers = {name: LOG[name] for name in ("level", "flow", "valve", "paid")}
    path = csv(tmp_path / "log.csv", numbers, header=False)
    data, _ = importing.read(path, Columns(("0", "1"), ("2",), episode_length=12))
    np.testing.assert_array_equal(data.observations[:, 1], LOG["flow"].astype(np.float32))
    assert data.steps == 12


def test_what_only_python_takes_for_a_number_is_none(tmp_path: Path) -> None:
    for cell in ("1_000", "١٢"):
        (tmp_path / "log.csv").write_text(f"a,u\n1,0\n{cell},0\n")
        with pytest.raises(LegatoError, match=r"line 3: 'a' is '.*', no number"):
            importing.read(tmp_path / "log.csv", Columns(("a",), ("u",), episode_length=2))


def test_what_is_taken_for_no_header_and_no_mark_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("0,1,0\n7,0.5,\n8,0.5,1\n")
    _, said = importing.read(tmp_path / "log.csv", Columns(("0",), ("1",), terminal="2", episode_length=3))
    assert "there is no header: the first line is a row, and columns are 0, 1, 2, ..." in said
    assert "empty cells of '2' mark nothing" in said


def test_columns_may_be_named_by_a_pattern_and_what_is_not_used_is_said() -> None:
    data, said = from_table(LOG, replace(COLUMNS, observations=("*l*e*l", "fl*"), reward=None))
    np.testing.assert_array_equal(data.observations[:, 1], LOG["flow"].astype(np.float32))
    assert "not used: paid" in said and data.rewards is None


def test_episodes_may_end_after_so_many_rows_or_at_gaps() -> None:
    fixed = replace(COLUMNS, episode=None, time=None, terminal=None, episode_length=5)
    np.testing.assert_array_equal(from_table(LOG, fixed)[0].offsets, [0, 5, 10, 12])
    gaps = replace(COLUMNS, episode=None, terminal=None, gap=1.0)
    np.testing.assert_array_equal(from_table(LOG, gaps)[0].offsets, [0, 4, 7, 12])


def test_times_may_be_dates() -> None:
    start = np.datetime64("2025-01-31T13:00:00")
    stamps = [f"{start + np.timedelta64(int(1000 * t), 'ms')}" for t in LOG["t"]]
    for column in (np.array(stamps), np.array(stamps, "datetime64[ms]")):
        assert "a step is 0.1 s" in from_table({**LOG, "t": column}, COLUMNS)[1]


def test_rows_with_empty_cells_are_left_out_or_hold_the_value_before(tmp_path: Path) -> None:
    level = LOG["level"].copy()
    level[[5, 7]] = np.nan  # within an episode, and at the beginning of one
    table = {**LOG, "level": level}
    path = csv(tmp_path / "log.csv", {**LOG, "level": ["" if np.isnan(x) else x for x in level]})
    for source in (lambda c: from_table(table, c), lambda c: importing.read(path, c)):
        with pytest.raises(LegatoError, match="row 5: 'level' is empty, and so are cells of 2 rows"):
            source(COLUMNS)
        dropped = source(replace(COLUMNS, missing="drop"))[0]
        np.testing.assert_array_equal(dropped.offsets, [0, 4, 5, 6, 10])
        np.testing.assert_array_equal(np.flatnonzero(dropped.terminations), [5])
        held = source(replace(COLUMNS, missing="hold"))[0]
        np.testing.assert_array_equal(held.offsets, [0, 4, 7, 11])
        assert held.observations[5, 0] == np.float32(level[4])


def test_discrete_actions_are_counted() -> None:
    table = {**LOG, "valve": np.arange(12) % 3 + 1}
    data, _ = from_table(table, replace(COLUMNS, low=(), high=(), choices=3, start=1))
    np.testing.assert_array_equal(data.actions, np.arange(12) % 3)


def test_values_that_float32_cannot_tell_apart_are_warned_of() -> None:
    unix = 1.7e9 + 0.1 * np.arange(12)
    with pytest.warns(LegatoWarning, match="the 12 values of 't', up to 1.7e[+]09, are 1 as float32"):
        from_table({**LOG, "t": unix}, replace(COLUMNS, observations=("level", "t"), time=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_table({**LOG, "t": unix - unix[0]}, replace(COLUMNS, observations=("level", "t"), time=None))


def test_lengths_of_time_are_typed_with_their_unit() -> None:
    assert [seconds(text) for text in ("60", "60s", "1.5 min", "2h", "100ms")] == [60, 60, 90, 7200, 0.1]
    with pytest.raises(LegatoError, match="'soon' is no length of time"):
        seconds("soon")


def changed(name: str, row: int, value: Any) -> dict[str, Any]:
    column = LOG[name].astype(object if isinstance(value, str) else LOG[name].dtype)
    column[row] = value
    return {**LOG, name: column}


BAD: dict[str, tuple[dict[str, Any], Columns, str]] = {
    "nothing said": (LOG, Columns(), "which columns of 'table' are observations, which actions.* burst, flow, level"),
    "no such column": (LOG, replace(COLUMNS, reward="pay"), "has no column 'pay'; it has burst, flow"),
    "text for a number": (changed("level", 3, "n/a"), COLUMNS, "'level' holds texts"),
    "named twice": (LOG, replace(COLUMNS, actions=("level",)), "'level' is named twice"),
    "no ends": (LOG, replace(COLUMNS, episode=None, terminal=None, time=None), "where do the episodes .* end"),
    "not sorted": (changed("run", 11, "a"), COLUMNS, "not sorted by 'run': a comes again in row 11"),
    "time falls": (changed("t", 2, 0.05), COLUMNS, "row 2: 't' is earlier than the row before"),
    "time repeats": (changed("t", 2, 0.1), COLUMNS, "row 2: 't' is twice the same"),
    "periods mixed": ({**LOG, "t": np.cumsum([1, 2] * 6)}, COLUMNS, "mixes periods"),
    "time empty": (changed("t", 2, np.nan), COLUMNS, "'t' is empty in row 2"),
    "flags counted": ({**LOG, "burst": np.arange(12)}, COLUMNS, "'burst' marks rows by 0 and 1"),
    "bounds too many": (LOG, replace(COLUMNS, low=(0.0, 0.0), high=(5.0, 5.0)), "low has 2 bounds for actions of 1"),
    "bounds reversed": (LOG, replace(COLUMNS, low=(5.0,), high=(0.0,)), "each lower bound lies below"),
    "outside its bounds": (LOG, replace(COLUMNS, high=(0.1,)), "of 12 actions lie outside their bounds"),
    "infinite": (changed("flow", 4, np.inf), COLUMNS, "the observations of step 0 of episode 1 are not finite"),
    "no rows": ({name: column[:0] for name, column in LOG.items()}, COLUMNS, "'table' holds no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    table, columns, words = BAD[name]
    with pytest.raises(LegatoError, match=words) as problem:
        from_table(table, columns)
    assert "\n" not in str(problem.value)


def test_a_row_that_is_missing_in_a_long_log_is_named() -> None:
    table = {"t": np.delete(np.arange(101.0), 50), "x": np.arange(100.0), "u": np.zeros(100)}
    with pytest.raises(LegatoError, match="row 50: 2 s after the one before, where the period is 1 s: `gap=2"):
        from_table(table, Columns(("x",), ("u",), episode_length=100, time="t"))


RULES = {
    "two rules": ({"episode": "run", "gap": 1.0, "time": "t"}, "leave out episode or gap"),
    "gap without time": ({"gap": 1.0}, "say which column that is"),
    "half of bounds": ({"low": (0.0,)}, "a low and a high"),
    "choices with bounds": ({"low": (0.0,), "high": (1.0,), "choices": 2}, "discrete actions have no bounds"),
    "clipped to nothing": ({"clip_actions": True}, "give low and high too"),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_that_do_not_go_together_are_refused(name: str) -> None:
    options, words = RULES[name]
    with pytest.raises(LegatoError, match=words):
        Columns(**options)


FILES = {
    "text": ("a,b\n1,2\n3,x\n", "line 3: 'b' is 'x', no number"),
    "decimal comma": ("a;b\n1;2\n3;2,5\n", "line 3: 'b' is '2,5', no number; write decimal points"),
    "row too short": ("a,b\n1,2\n3\n", "line 3: 1 cells, where its header has 2"),
    "names twice": ("a,a\n1,2\n", "two columns of the name 'a'"),
    "empty": ("", "is empty"),
    "header alone": ("a,b\n", "holds no rows"),
    "an open quote": ('a,b\n1,"2\n', "cannot be read as a table"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_such_table_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, words = FILES[name]
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(LegatoError, match=words):
        importing.read(tmp_path / "log.csv", Columns(("a",), ("b",), episode_length=1))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(LegatoError, match="is not text in UTF-8"):
        importing.read(tmp_path / "log.csv", Columns(("a",), ("b",), episode_length=1))


def test_a_parquet_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "log.parquet", LOG)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LegatoError, match="it is cut or no Parquet file"):
        importing.read(path, COLUMNS)


def test_lists_of_other_lengths_are_refused_even_where_their_numbers_divide(tmp_path: Path) -> None:
    for number, lists in enumerate(([[1.0], [2.0, 3.0, 4.0]], [[1.0, 2.0], None])):
        path = parquet(tmp_path / f"{number}.parquet", {"x": lists, "u": [0.0, 1.0]})
        with pytest.raises(LegatoError, match="the lists in 'x' are of different lengths, or missing"):
            importing.read(path, Columns(("x",), ("u",), episode_length=2))


def test_a_line_is_counted_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('a,b,c\n1,2,"x\ny"\n\n3,x,z\n')
    with pytest.raises(LegatoError, match="line 5: 'b' is 'x'"):
        importing.read(tmp_path / "log.csv", Columns(("a",), ("b",), episode_length=1))


def test_what_is_no_table_is_refused() -> None:
    for table, words in ((5, "int was given"), ({**LOG, "flow": LOG["flow"][:3]}, r"'flow' has shape \(3,\)")):
        with pytest.raises(LegatoError, match=words):
            from_table(table, COLUMNS)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_column_may_be_used_twice_and_the_table_stays_as_it_was(kind: type, tmp_path: Path) -> None:
    log = LOG | {name: LOG[name].astype(kind) for name in ("level", "flow", "valve", "paid")}
    before = {name: array.copy() for name, array in log.items()}
    twice = replace(COLUMNS, observations=("level", "t", "paid"))
    for found in (from_table(log, twice), importing.read(parquet(tmp_path / "log.parquet", log), twice)):
        expected = np.stack([log["level"], log["t"], log["paid"]], axis=1).astype(np.float32)
        np.testing.assert_array_equal(found[0].observations, expected)
        np.testing.assert_array_equal(found[0].rewards, log["paid"].astype(np.float32))
        assert found[0].observations.dtype == np.float32
        assert found[1][0] == "12 rows: observations level, t, paid; actions valve"
    for name, array in log.items():
        np.testing.assert_array_equal(array, before[name])
    log["level"][3] = np.nan
    held, _ = from_table(log, replace(twice, missing="hold"))
    assert held.observations[3, 0] == np.float32(log["level"][2])
    assert np.isnan(log["level"][3])


def test_the_memory_of_lists_is_counted_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[float(i + j) for j in range(50)] for i in range(12)]
    path = parquet(tmp_path / "log.parquet", {"x.y": lists, "u": np.zeros(12), "z": lists})
    columns = Columns(("x.y",), ("u",), episode_length=3)
    monkeypatch.setattr(storage, "available", lambda: 8 * 51 * 12 - 1)
    with pytest.raises(LegatoError, match=r"reading '.*log.parquet' takes"):
        importing.read(path, columns)
    monkeypatch.setattr(storage, "available", lambda: 8 * 51 * 12)
    np.testing.assert_array_equal(importing.read(path, columns)[0].observations, np.array(lists, np.float32))


def test_large_numbers_of_episodes_are_told_apart(tmp_path: Path) -> None:
    """Float64 takes 2^53 and the number after it for the same; texts are told apart as they are written."""
    for ids in ([7, 7, 2**60, 2**60], [2**53, 2**53, 2**53 + 1, 2**53 + 1], ["00e1", "00e1", "00e2", "00e2"]):
        table = {"run": ids, "a": np.arange(4.0), "u": np.zeros(4)}
        columns = Columns(("a",), ("u",), episode="run")
        made = (csv(tmp_path / "log.csv", table), parquet(tmp_path / "log.parquet", table, rows=2))
        for data, _ in (*(importing.read(path, columns) for path in made), from_table(table, columns)):
            assert data.offsets.tolist() == [0, 2, 4]


def test_what_is_masked_is_missing() -> None:
    masked = np.ma.masked_array([1.0, 2.0, 3.0, 4.0], [False, True, False, False])
    columns = Columns(("a",), ("u",), episode_length=4)
    with pytest.raises(LegatoError, match="row 1: 'a' is empty"):
        from_table({"a": masked, "u": np.zeros(4)}, columns)
    held, _ = from_table({"a": masked, "u": np.zeros(4)}, replace(columns, missing="hold"))
    assert held.observations[:, 0].tolist() == [1, 1, 3, 4]


def test_times_with_offsets_are_read_in_silence() -> None:
    times = ["2025-03-30T01:59:59+01:00", "2025-03-30T03:00:00+02:00", "2025-03-30T01:00:01Z"]
    _, said = from_table({"t": times, "a": [1, 2, 3], "u": [0, 0, 0]}, Columns(("a",), ("u",), time="t", gap="5s"))  # type: ignore[arg-type]
    assert "a step is 1 s" in said


TABLE = {"a": [1.0, 2.0, 3.0], "u": [0.0, 0.1, 0.2], "t": [0.0, 1.0, 2.0]}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "reward of lists": ({"r": [[1, 9], [2, 9], [3, 9]]}, {"reward": "r"}, "'r' holds lists, and is to hold one value"),
    "time of lists": ({"t": [[0], [1], [2]]}, {"time": "t"}, "'t' holds lists"),
    "wild reward": ({}, {"reward": "a*"}, "has no column 'a[*]'"),
    "infinite time": ({"t": [0, 1, np.inf]}, {"time": "t"}, "'t' is infinite in row 2"),
    "now": ({"t": ["2025-01-01", "now", "2025-01-03"]}, {"time": "t"}, "row 1: 't' is 'now'; times are seconds or"),
    "time of no day": ({"t": ["2025-01-01", "2025-0Z1-02", "x"]}, {"time": "t"}, "row 1: 't' is '2025-0Z1-02'"),
    "time that is empty": ({"t": ["2025-01-01", "", "2025-01-03"]}, {"time": "t"}, "'t' is empty in row 1"),
    "long cell": ({"t": ["x" * 300, "y", "z"]}, {"episode": "t", "episode_length": None}, "has 300 characters"),
    "ragged": ({"a": [[1], [2, 3], [4]]}, {}, "holds what is no table of numbers"),
    "too large": ({"a": [10**400] * 3}, {}, "holds what is no table of numbers|texts"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_columns_that_say_something_else_are_refused_in_one_line(name: str) -> None:
    changes, told, words = BROKEN[name]
    with warnings.catch_warnings(), pytest.raises(LegatoError, match=words) as refused:
        warnings.simplefilter("error")
        from_table({**TABLE, **changes}, Columns(**{"observations": "a", "actions": "u", "episode_length": 3, **told}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"low": np.nan, "high": 1.0}, "low is a number that bounds something; nan was given"),
        ({"low": 0.0, "high": np.inf}, "high is a number that bounds something; inf was given"),
        ({"low": -1e39, "high": 1e39}, "bounds something"),
        ({"low": ("x",), "high": (1.0,)}, "bounds something"),
        ({"choices": 10**12}, "choices is a whole number from 1 to 65536"),
        ({"episode_length": 2.5}, "episode_length is a whole number"),
        ({"missing": "ffill"}, "unknown way with missing values 'ffill'"),
        ({"gap": "soon", "time": "t"}, "'soon' is no length of time"),
    ],
)
def test_rules_that_mean_nothing_are_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=words):
        Columns(("a",), ("u",), **told)


def test_a_parquet_file_without_rows_with_nested_lists_or_two_columns_of_a_name_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = Columns(("x",), ("u",), episode_length=2)
    empty = {"x": pyarrow.array([], pyarrow.list_(pyarrow.float64())), "u": pyarrow.array([], pyarrow.float64())}
    made = {
        "holds no rows": pyarrow.table(empty),
        "holds lists of lists": pyarrow.table({"x": [[[1.0]], [[2.0]]], "u": [0.0, 0.0]}),
        "has two columns of the name 'x'": pyarrow.table([[1.0], [1.0], [0.0]], names=["x", "x", "u"]),
    }
    for words, table in made.items():
        pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
        with pytest.raises(LegatoError, match=words):
            importing.read(tmp_path / "log.parquet", columns)
