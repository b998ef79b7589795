"""The evaluations of a run on its way, as its metrics.csv has them."""

from __future__ import annotations

import csv

import numpy as np

from legato.errors import LegatoError
from legato.training import files
from legato.training.run import Run


def learning_curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a fine-tuning's evaluations, from 0 on, and their mean returns `[seeds, evaluations]`.

    Raises `LegatoError` where there are none yet, and for a file that is not what legato wrote.
    """
    path = run.path / "metrics.csv"
    try:
        text = files.read_bytes(path, files.LARGEST).decode()
        rows = [row for row in csv.DictReader(text.splitlines()) if row.get("eval_return")]
        found = [[(int(r["step"]), float(r["eval_return"])) for r in rows if int(r["seed"]) == s] for s in run.seeds]
        steps = {tuple(step for step, _ in of_seed) for of_seed in found}
        if len(steps) > 1 or not np.isfinite([value for of_seed in found for _, value in of_seed]).all():
            raise ValueError("its seeds were not evaluated at the same steps, or to numbers that are not finite")
    except FileNotFoundError:
        raise LegatoError(f"'{run.place}' has no evaluations: its metrics.csv is gone") from None
    except (ValueError, KeyError, TypeError, csv.Error) as problem:
        raise LegatoError(f"'{path}' is not what legato wrote ({problem}); it was changed") from problem
    if not found[0]:
        raise LegatoError(f"'{run.place}' has no evaluations yet")
    return np.array([step for step, _ in found[0]]), np.array([[value for _, value in of_seed] for of_seed in found])
