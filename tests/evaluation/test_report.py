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
from legato.evaluation.normalised import NormalisationScores
from legato.evaluation.prompts import Prompts
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
    for words in ("Pendulum-v1", "best policy", "3 seeds x 5 episodes", "R(1)", "R(30)", "per s", "ms per"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("width", [80, 100, report.WIDE - 1, report.WIDE, 120])
def test_nothing_is_cut_off(width: int) -> None:
    searched = replace(
        evaluation("", 400.0), label="SRL-4 (+planner=mppi, samples=64, iterations=12)", which="best+planner=mppi"
    )
    scored = [replace(e, levels=NormalisationScores(-1600.0, 0.0, "the dataset")) for e in (searched, OTHER)]
    console = Console(width=width)
    with console.capture() as captured:
        console.print(report.table(scored, width))
    text = captured.get()
    assert "…" not in text
    assert "best policy" in text
    for found in scored:
        assert found.fas is not None
        returns = [f"{found.asl.at(n).mean:.0f}" for n in (1, 4, 8, 16, 30)]
        for cell in (f"{found.fas.mean:.3f}", f"[{found.fas.low:.3f}, {found.fas.high:.3f}]", *returns):
            assert cell in text
    names = [re.match(r"(?:│ )?(.*?)(?:  | \[| │|$)", line)[1] for line in text.splitlines()]  # type: ignore[index]
    assert searched.label.replace(" ", "") in "".join(names).replace(" ", "")  # folded, but all of it


@pytest.mark.parametrize("width", [80, 120])
def test_the_known_optimum_is_the_last_row(width: int) -> None:
    """Of whichever evaluation knows it."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(report.table([ONE, replace(OTHER, optimum=tuple(-90.0 - n for n in GRID))], width))
    (line,) = [line for line in captured.get().splitlines() if "known optimum" in line]
    assert re.findall(r"-\d+", line) == ["-91", "-94", "-98", "-106", "-120"]
    with console.capture() as captured:
        console.print(report.table([ONE, OTHER], width))
    assert "optimum" not in captured.get()


def test_the_best_score_stands_out_among_several() -> None:
    def apply_style(evaluations: list[Evaluation]) -> list[str]:
        console = Console(width=120, force_terminal=True, color_system="standard", record=True, file=None)
        with console.capture() as captured:
            console.print(report.table(evaluations))
        return [line for line in captured.get().splitlines() if re.search(r"\x1b\[1;32m", line)]

    (best,) = apply_style([OTHER, ONE])
    assert "SRL-4" in best
    assert apply_style([ONE]) == []


def test_one_seed_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    single = evaluation("SRL-4", 2.0, seeds=1)
    text = shown([single], capsys)
    assert single.fas is not None
    assert cells(text, "SRL-4")[1] == f"{single.fas.mean:.3f}"
    assert "1 seed x 5 episodes" in text
    assert "bootstrap" not in text and "bootstrap interval over seeds" in shown([ONE], capsys)


def test_other_clocks_of_a_single_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([ONE], capsys)
    intervals, delay = ONE.intervals, ONE.delay
    assert intervals is not None
    assert delay is not None
    for sweep, x, words in ((intervals, 8, "of 1 to 8 steps"), (delay, 3, "3 steps late")):
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
    assert "FAS needs reference values for Mine-v0: evaluate it with max_return and offset" in text
    assert "FAS needs" not in shown([ONE], capsys)


def test_lengths_that_were_not_measured_have_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    few = replace(ONE, asl=Sweep((1, 8), ONE.asl.returns[:, [0, 4]]))
    text = shown([few, replace(OTHER, asl=Sweep((1,), OTHER.asl.returns[:, :1]))], capsys)
    assert "R(4)" not in text
    assert cells(text, "SRL-4")[2:4] == ["-112", "-126"]
    assert cells(text, "SAC")[2:4] == ["-119", ""]


ASKED = replace(
    ONE,
    label="DT",
    levels=NormalisationScores(-300.0, -100.0, "D4RL"),
    prompts=Prompts(
        (-250.0, -150.0, 50.0),
        np.array([[[-240.0], [-160], [-140]], [[-220], [-140], [-120]]]),
        -150.0,
        (-260.0, -140.0),
    ),
)


def answer(text: str, asked: str) -> list[str]:
    """The row of an asked return."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    (found,) = [row for row in rows if row[0] == asked]
    return found


def test_what_was_asked_and_achieved(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([ASKED], capsys)
    assert "DT: the return asked for and achieved" in text
    assert answer(text, "-250") == ["-250", "-230 [-240, -220]", "35.0", "yes, -260 to -140"]
    assert answer(text, "(default) -150") == ["(default) -150", "-150 [-160, -140]", "75.0", "yes, -260 to -140"]
    assert answer(text, "50") == ["50", "-130 [-140, -120]", "85.0", "no, -260 to -140"]
    assert "asked" not in shown([ONE], capsys)


def test_scores_stand_beside_returns_where_levels_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    """As trained: -100 - 2 * 4 - 10 on average, of -300 to -100."""
    text = shown([ASKED, OTHER], capsys)
    assert cells(text, "DT")[7] == "91.0"
    assert cells(text, "SAC")[7] == ""
    assert "score: 0 is a random, 100 an expert policy's return (D4RL), deciding as in training" in text
    assert "score" not in shown([ONE, OTHER], capsys)
    unscored = shown([replace(ASKED, levels=None)], capsys)
    assert answer(unscored, "-250") == ["-250", "-230 [-240, -220]", "yes, -260 to -140"]
    assert max(map(len, text.splitlines())) <= 120


def test_several_policies_share_the_table_of_asked_returns(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([ASKED, replace(ASKED, label="DS4"), OTHER], capsys)
    table = text[text.index("the return asked for") :]
    assert [cells(table, name)[:2] for name in ("DT", "DS4")] == [["DT", "-250"], ["DS4", "-250"]]
    assert "SAC" not in table


@pytest.mark.parametrize(
    ("asked", "text"), [(3234.31, "3234"), (250.4, "250"), (12.34, "12.3"), (1.5, "1.50"), (0.25, "0.250")]
)
def test_returns_have_the_decimals_that_their_size_needs(
    asked: float, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Prompts((asked,), np.zeros((1, 1, 1)), 0.0, (0.0, 1.0))
    row = answer(shown([replace(ASKED, prompts=found)], capsys), text)
    assert row[1] == f"{0:.{len(text.partition('.')[2])}f}"


def test_small_returns_are_told_apart_in_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Returns of -1.12 and -1.18, which would both be -1."""
    small = [
        replace(e, asl=Sweep(GRID, e.asl.returns / 100), intervals=Sweep((1,), e.asl.returns[:, :1] / 100), delay=None)
        for e in (ONE, OTHER)
    ]
    assert cells(shown(small, capsys), "SRL-4")[2:7] == ["-1.12", "-1.18", "-1.26", "-1.42", "-1.70"]
    small[0].asl.returns[:, -1] = -250.0
    assert cells(shown(small, capsys), "SRL-4")[2:7] == ["-1.1", "-1.2", "-1.3", "-1.4", "-250.0"]
    assert cells(shown(small[:1], capsys), "decides at every step")[-1].startswith("-1.12 [")
