"""What a run measured on its way, as its metrics.csv has it."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np

from legato.errors import LegatoError
from legato.training import files
from legato.training.run import Run

PLACES = ("step", "seed")
"""columns that say where a row belongs"""


def metric_curves(run: Run, seeds: Sequence[int] | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every column that has numbers: the steps (updates, of what learns from logs) and the values `[seeds, points]`.

    A point is a step at which all `seeds`, by default the run's, have a finite number; a column without any is left
    out. Raises `LegatoError` where there is no metrics.csv, and for one that is not what legato wrote.
    """
    path = run.path / "metrics.csv"
    try:
        reader = csv.DictReader(files.read_bytes(path, files.LARGEST).decode().splitlines())
        rows = list(reader)
        seeds = run.seeds if seeds is None else seeds
        of_seeds = [{int(row["step"]): row for row in rows if int(row["seed"]) == seed} for seed in seeds]
        found = {}
        for name in [name for name in reader.fieldnames or () if name not in PLACES]:
            values = [{step: float(row[name]) for step, row in of.items() if row[name]} for of in of_seeds]
            finite = [{step for step, value in of.items() if np.isfinite(value)} for of in values]
            if steps := sorted(set.intersection(*finite)):
                found[name] = np.array(steps), np.array([[of[step] for step in steps] for of in values])
        return found
    except FileNotFoundError:
        raise LegatoError(f"'{run.place}' has no metrics.csv: it was not trained yet, or the file is gone") from None
    except (ValueError, KeyError, TypeError, csv.Error) as problem:
        raise LegatoError(f"'{path}' is not what legato wrote ({problem}); it was changed") from problem


def learning_curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a fine-tuning's evaluations, from 0 on, and their mean returns `[seeds, evaluations]`.

    Raises `LegatoError` where there are none yet, and for a file that is not what legato wrote.
    """
    found = metric_curves(run).get("eval_return")
    if found is None:
        raise LegatoError(f"'{run.place}' has no evaluations yet")
    return found
