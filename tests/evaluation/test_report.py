"""The report: the numbers of the evaluations, where and as they are promised."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from legato.evaluation import report
from legato.evaluation.fas import GRID, reference
from legato.evaluation.latency import Latency
from legato.evaluation.sweeps import Evaluation, Sweep

LENGTHS = np.array(GRID, float)


def evaluation(label: str, slope: float, seeds: int = 3) -> Evaluation:
    """Returns of -100 - slope * n on seed 1, ten less on each further seed."""
    returns = -100 - slope * LENGTHS[None, :, None] - 10.0 * np.arange(seeds)[:, None, None] + np.zeros((1, 1, 5))
    return Evaluation(
        label=label,
        environment="Pendulum-v1",
        which="best",
        seeds=tuple(range(seeds)),
        trained_length=4,
        step_seconds=0.05,
        asl=Sweep(GRID, returns),
        intervals=Sweep((1, 8), returns[:, :2]),
        delay=Sweep((0, 3), returns[:, 2:4]),
        reference=reference("Pendulum-v1"),
        latency=Latency(4, 0.6, 0.512, 0.9),
    )


ONE, OTHER = evaluation("SRL-4", 2.0), evaluation("SAC", 9.0)


def shown(evaluations: list[Evaluation], capsys: pytest.CaptureFixture[str]) -> str:
    report.show(evaluations)
    return capsys.readouterr().out


def cells(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if re.search(rf"│ {re.escape(label)} ", line)]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_row_holds_the_numbers_of_its_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([ONE, OTHER], capsys)
    for found in (ONE, OTHER):
        assert found.fas is not None
        score = f"{found.fas.mean:.3f} [{found.fas.low:.3f}, {found.fas.high:.3f}]"
        returns = [f"{found.asl.at(n).mean:.0f}" for n in (1, 4, 8, 16, 30)]
        assert cells(text, found.label) == [found.label, score, *returns, "5", "0.51"]
    assert cells(text, "SRL-4")[2:7] == ["-112", "-118", "-126", "-142", "-170"]  # by hand
    for words in ("Pendulum-v1", "best policy", "3 seeds x 5 episodes", "R(1)", "R(30)", "decisions/s", "ms/decision"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_best_score_stands_out_among_several() -> None:
    def styled(evaluations: list[Evaluation]) -> list[str]:
        console = Console(width=120, force_terminal=True, color_system="standard", record=True, file=None)
        with console.capture() as captured:
            console.print(report.table(evaluations))
        return [line for line in captured.get().splitlines() if re.search(r"\x1b\[1;32m", line)]

    (best,) = styled([OTHER, ONE])
    assert "SRL-4" in best
    assert styled([ONE]) == []


def test_one_seed_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    single = evaluation("SRL-4", 2.0, seeds=1)
    text = shown([single], capsys)
    assert single.fas is not None
    assert cells(text, "SRL-4")[1] == f"{single.fas.mean:.3f}"
    assert "1 seed x 5 episodes" in text


def test_other_clocks_of_a_single_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([ONE], capsys)
    intervals, delay = ONE.intervals, ONE.delay
    assert intervals is not None
    assert delay is not None
    for sweep, x, words in ((intervals, 8, "every 1 to 8 steps"), (delay, 3, "3 steps late")):
        (line,) = [line for line in text.splitlines() if words in line]
        found = sweep.at(x)
        assert f"{found.mean:.0f} [{found.low:.0f}, {found.high:.0f}]" in line
    assert "late" not in shown([ONE, OTHER], capsys)
    assert "late" not in shown([replace(ONE, intervals=None, delay=None)], capsys)


def test_what_is_not_known_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    bare = replace(ONE, environment="Mine-v0", reference=None, step_seconds=None, latency=None)
    text = shown([bare], capsys)
    row = cells(text, "SRL-4")
    assert row[1] == "unknown"
    assert row[-2:] == ["", ""]
    assert "FAS needs reference values for Mine-v0: give --max-return and --offset" in text
    assert "FAS needs" not in shown([ONE], capsys)


def test_lengths_that_were_not_measured_have_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    few = replace(ONE, asl=Sweep((1, 8), ONE.asl.returns[:, [0, 4]]))
    text = shown([few, replace(OTHER, asl=Sweep((1,), OTHER.asl.returns[:, :1]))], capsys)
    assert "R(4)" not in text
    assert cells(text, "SRL-4")[2:4] == ["-112", "-126"]
    assert cells(text, "SAC")[2:4] == ["-119", ""]
