"""Episodes out of the rows of a table: where they begin, what is missing, how actions are bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from legato.data.storage import some
from legato.data.tables.columns import Columns, Table, match_columns, matrix
from legato.data.trajectories import About, Trajectories, trajectories
from legato.errors import LegatoError

REGULAR = 0.4  # of a period that a row may come early or late


def from_rows(table: Table, columns: Columns) -> tuple[Trajectories, list[str]]:
    """Trajectories of a table that was read, and what was decided."""
    name, header = table.name, table.header
    seen, acted = (match_columns(name, header, names) for names in (columns.observations, columns.actions))
    if not table.rows:
        raise LegatoError(f"'{name}' holds no rows")
    said = [f"{table.rows} rows: observations {', '.join(seen)}; actions {', '.join(acted)}"]
    said += [] if table.named else ["there is no header: the first line is a row, and columns are 0, 1, 2, ..."]
    unused = [c for c in header if c not in table.columns]
    marks = (columns.terminal, columns.episode, columns.time)
    for column in (columns.reward, *marks):
        if column is not None and table.columns[column].ndim != 1:
            raise LegatoError(f"'{name}': '{column}' holds lists, and is to hold one value a row")
    observations = matrix(table, seen, (columns.reward, *marks))
    actions = matrix(table, acted, (columns.reward, *marks))
    reward = None if columns.reward is None else matrix(table, [columns.reward], marks)
    terminal = np.zeros(len(actions), bool) if columns.terminal is None else _flags(table, columns.terminal, said)
    said += [f"not used: {some(unused)}"] if unused else []
    said.append(
        "no rewards: the logs can be imitated"
        if columns.reward is None
        else f"'{columns.reward}' is paid for its row's action"
    )
    begins = _begins(table, columns, terminal, said)
    held: list[tuple[list[str], np.ndarray]] = [(seen, observations), (acted, actions)]
    if columns.reward is not None and reward is not None:
        held.append(([columns.reward], reward))
    keep, begins = _without_missing(table, columns, held, begins, said)
    del held
    if keep is not None:
        observations, actions, terminal = observations[keep], actions[keep], terminal[keep]
        reward = None if reward is None else reward[keep]
    offsets = np.append(np.flatnonzero(begins), len(begins))
    lengths = np.diff(offsets)
    truncated = np.zeros(len(begins), bool)
    truncated[offsets[1:] - 1] = ~terminal[offsets[1:] - 1]
    least, most = lengths.min(), lengths.max()
    long = f"{least} to {most}" if most > least else str(least)
    said.append(
        f"{len(lengths)} episode{'s' if len(lengths) > 1 else ''} of {long} steps, "
        f"{int(terminal.sum())} terminated; what follows an episode's last step is not known"
    )
    about = _about(name, columns, actions, said)
    data = trajectories(
        observations,
        actions,
        None if reward is None else reward[:, 0],
        terminal,
        truncated,
        offsets,
        about=about,
        clip_actions=columns.clip_actions,
        start=columns.start,
    )
    return data, said


def _flags(table: Table, column: str, said: list[str]) -> np.ndarray:
    array = table.columns[column]
    if array.dtype.kind == "U" and np.isin(np.char.lower(array), ("true", "false", "")).all():
        return np.char.lower(array) == "true"
    if array.dtype.kind == "f" and np.isnan(array).any():
        said.append(f"empty cells of '{column}' mark nothing")
    if array.dtype.kind == "U" or not np.isin(array[~np.isnan(array)], (0, 1)).all():
        raise LegatoError(f"'{table.name}': '{column}' marks rows by 0 and 1, or true and false, and holds others")
    return array == 1


def _begins(table: Table, columns: Columns, terminal: np.ndarray, said: list[str]) -> np.ndarray:
    """The rows at which an episode begins."""
    rows = len(terminal)
    begins = np.zeros(rows, bool)
    begins[0] = True
    begins[1:] |= terminal[:-1]
    if columns.episode is not None:
        array = table.columns[columns.episode]
        empty = array == "" if array.dtype.kind == "U" else np.isnan(array)
        if empty.any():
            raise LegatoError(f"'{table.name}': '{columns.episode}' is empty in row {int(empty.argmax())}")
        change = np.append(True, array[1:] != array[:-1])
        values = array[change]
        if len(np.unique(values)) < len(values):
            _, first, back = np.unique(values, return_index=True, return_inverse=True)
            again = int(np.flatnonzero(first[back] != np.arange(len(values)))[0])
            raise LegatoError(
                f"'{table.name}' is not sorted by '{columns.episode}': {values[again]} comes again in row "
                f"{int(np.flatnonzero(change)[again])}"
            )
        begins |= change
        said.append(f"an episode begins where '{columns.episode}' changes")
    elif columns.episode_length is not None:
        begins[:: columns.episode_length] = True
        rest = rows % columns.episode_length
        said.append(f"an episode has {columns.episode_length} rows" + (f", the last one {rest}" if rest else ""))
    elif columns.gap is None and columns.terminal is None:
        ways = "give `episode` a column, `episode_length` the rows of each, or `time` a column and `gap` seconds"
        raise LegatoError(
            f"where do the episodes of '{table.name}' end? {ways}; `episode_length={rows}` takes all for one"
        )
    if columns.time is not None:
        _time(table, columns, begins, said)
    return begins


def _time(table: Table, columns: Columns, begins: np.ndarray, said: list[str]) -> None:
    """Look for rows that are missing or out of order, and begin episodes after gaps."""
    time, name = _seconds(table, columns), table.name
    if np.isnan(time).any():
        raise LegatoError(f"'{name}': '{columns.time}' is empty in row {int(np.isnan(time).argmax())}")
    if not np.isfinite(time).all():
        raise LegatoError(f"'{name}': '{columns.time}' is infinite in row {int((~np.isfinite(time)).argmax())}")
    apart = np.diff(time)
    within = ~begins[1:]
    fall = within & (apart <= 0)
    if fall.any():
        row = int(fall.argmax()) + 1
        what = "twice the same" if apart[row - 1] == 0 else "earlier than the row before"
        raise LegatoError(f"'{name}', row {row}: '{columns.time}' is {what}; sort the rows by it, without duplicates")
    if columns.gap is not None:
        late = within & (apart > columns.gap)
        begins[1:] |= late
        within &= ~late
        said.append(f"an episode begins after {columns.gap:g} s without a row: {int(late.sum())} times")
    if not within.any():
        return
    period = float(np.median(apart[within]))
    early, late = within & (apart < (1 - REGULAR) * period), within & (apart > (1 + REGULAR) * period)
    if columns.gap is None and late.any() and late.sum() <= 0.05 * within.sum():
        row = int(late.argmax()) + 1
        raise LegatoError(
            f"'{name}', row {row}: {apart[row - 1]:g} s after the one before, where the period is {period:.4g} s: "
            f"`gap={2 * period:.4g}` ends an episode there (instead of `episode` and `episode_length`)"
        )
    if early.any() or late.any():
        odd = int((early | late).sum())
        raise LegatoError(
            f"'{name}' mixes periods: {odd} of {int(within.sum())} rows come {apart[within].min():g} to "
            f"{apart[within].max():g} s after the one before, most after {period:.4g} s; write rows of one period"
        )
    said.append(f"a step is {period:.4g} s")


def _seconds(table: Table, columns: Columns) -> np.ndarray:
    assert columns.time is not None
    array = table.columns[columns.time]
    if array.dtype.kind != "U":
        return array
    found = np.empty(len(array))
    for row, text in enumerate(array.tolist()):
        try:
            found[row] = _stamp(text.strip()) if text.strip() else np.nan
        except ValueError:
            what = f"'{table.name}', row {row}: '{columns.time}' is '{text[:50]}'"
            raise LegatoError(f"{what}; times are seconds or 2025-01-31T13:00:00") from None
    return found - found[0]


def _stamp(text: str) -> float:
    """Seconds of a date and time of ISO 8601; without an offset they are of UTC. Raises `ValueError` for others."""
    stamp = datetime.fromisoformat(text)
    return (stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp).timestamp()


def _without_missing(
    table: Table,
    columns: Columns,
    held: list[tuple[list[str], np.ndarray]],
    begins: np.ndarray,
    said: list[str],
) -> tuple[np.ndarray | None, np.ndarray]:
    """The rows to keep, if not all, and at which of these an episode begins; repeats values in place where asked."""
    rows = len(begins)
    empty = np.zeros(rows, bool)
    first: tuple[int, str] | None = None
    for names, array in held:
        lacks = np.isnan(array)
        if lacks.any() and first is None:
            row = int(lacks.any(axis=1).argmax())
            first = row, names[int(lacks[row].argmax())] if len(names) == array.shape[1] else names[0]
        empty |= lacks.any(axis=1)
    if first is None:
        return None, begins
    if columns.missing == "error":
        raise LegatoError(
            f"'{table.name}', row {first[0]}: '{first[1]}' is empty, and so are cells of {int(empty.sum())} rows in "
            "all: `missing=drop` leaves such rows out, `missing=hold` repeats the value before"
        )
    if columns.missing == "hold":
        offsets = np.append(np.flatnonzero(begins), rows)
        number = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        for _, array in held:
            for column in array.T:
                last = np.maximum.accumulate(np.where(np.isnan(column), -1, np.arange(len(column))))
                known = (last >= 0) & (last >= offsets[number])
                column[known] = column[last[known]]
        said.append(f"empty cells of {int(empty.sum())} rows repeat the value before")
        empty = np.zeros(rows, bool)
        for _, array in held:
            empty |= np.isnan(array).any(axis=1)
    keep = ~empty
    if not keep.any():
        raise LegatoError(f"'{table.name}' has no row without an empty cell")
    begins = begins | np.append(False, empty[:-1])
    # An episode whose first row is left out begins with the next one that is kept.
    number = np.cumsum(begins)[keep]
    if empty.any():
        said.append(f"{int(empty.sum())} rows with empty cells are left out; an episode ends before each")
    return keep, np.append(True, number[1:] != number[:-1])


def _about(name: str, columns: Columns, actions: np.ndarray, said: list[str]) -> About:
    stem = Path(name).stem
    if columns.choices is not None:
        said.append(
            f"one of {columns.choices} discrete actions, {columns.start} to {columns.start + columns.choices - 1}"
        )
        return About(stem, columns.environment, choices=columns.choices, start=columns.start)
    size = actions.shape[1]
    if columns.low:
        bounds = [b * size if len(b) == 1 else b for b in (tuple(columns.low), tuple(columns.high))]
        for which, bound in zip(("low", "high"), bounds, strict=True):
            if len(bound) != size:
                raise LegatoError(f"{which} has {len(bound)} bounds for actions of {size} numbers")
        if any(a >= b for a, b in zip(*bounds, strict=True)):
            raise LegatoError("each lower bound lies below its upper one")
        said.append("actions lie " + ", ".join(f"in [{a:g}, {b:g}]" for a, b in zip(*bounds, strict=True)))
        return About(stem, columns.environment, low=bounds[0], high=bounds[1])
    used = f"{actions.min():.4g} to {actions.max():.4g}"
    if np.abs(actions).max() <= 1:
        said.append(f"bounds of actions are not given: -1 and 1, as all lie there ({used})")
    else:
        said.append(f"bounds of actions are not given, and the logs use {used}: `low` and `high` say them")
    return About(stem, columns.environment)
