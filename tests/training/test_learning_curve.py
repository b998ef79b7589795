"""What is read of a run's metrics.csv."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from legato.errors import LegatoError
from legato.training.learning_curve import learning_curve, metric_curves

TEXT = """step,seed,return,eval_return,q,nothing
10,0,1.5,,2,
10,1,2.5,,nan,
20,0,,7,4,
20,1,3.5,8,5,
"""


def run(folder: Path, text: str) -> Any:
    (folder / "metrics.csv").write_text(text)
    return SimpleNamespace(path=folder, place="run", seeds=[0, 1])


def test_a_point_is_a_step_at_which_all_seeds_have_a_finite_number(tmp_path: Path) -> None:
    found = metric_curves(run(tmp_path, TEXT))
    assert set(found) == {"return", "eval_return", "q"}
    for name, steps, values in (("return", [10], [[1.5], [2.5]]), ("q", [20], [[4], [5]])):
        np.testing.assert_array_equal(found[name][0], steps)
        np.testing.assert_array_equal(found[name][1], values)
    np.testing.assert_array_equal(learning_curve(run(tmp_path, TEXT))[1], [[7], [8]])


@pytest.mark.parametrize("text", [TEXT.replace("1.5", "x"), TEXT.replace("seed", "sead"), TEXT.replace("20,1", "a,1")])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LegatoError, match="is not what legato wrote"):
        metric_curves(run(tmp_path, text))


def test_a_file_that_is_gone_or_has_no_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="has no evaluations yet"):
        learning_curve(run(tmp_path, TEXT.replace(",7,", ",,")))
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(LegatoError, match=r"has no metrics\.csv"):
        metric_curves(SimpleNamespace(path=tmp_path, place="run", seeds=[0]))  # type: ignore[arg-type]


def test_one_seed_has_the_points_that_others_lack(tmp_path: Path) -> None:
    np.testing.assert_array_equal(metric_curves(run(tmp_path, TEXT), [1])["return"][1], [[2.5, 3.5]])
