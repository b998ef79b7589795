"""What ends up in the file, read back from the PNG and from the SVG, whose parts have names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from legato.errors import LegatoError
from legato.evaluation import figures
from legato.evaluation.fas import GRID, FASReference
from legato.evaluation.figures import (
    Curve,
    asl_curve,
    curve_figure,
    delay_curve,
    history_curve,
    interval_curve,
    learning_curves,
    prompt_curve,
)
from legato.evaluation.figures.drawing import _numbers
from legato.evaluation.figures.labels import _spread, _upwards
from legato.evaluation.statistics import Interval, bootstrap

PENDULUM = FASReference(1350.0, 1550.0)


def falling(label: str, seeds: int, trained_length: int | None = None, seed: int = 0) -> Curve:
    """A return that falls with the action sequence length, with noise; its arrays are read-only."""
    x = np.array(GRID)
    returns = -200.0 - 30.0 * x + np.random.default_rng(seed).normal(0.0, 40.0, (seeds, x.size))
    x.setflags(write=False)
    returns.setflags(write=False)
    return Curve(label, x, returns, trained_length)


class Drawn:
    """An SVG drawing read back; matplotlib writes each text as shapes below a comment that holds it."""

    def __init__(self, path: Path):
        builder = ElementTree.TreeBuilder(insert_comments=True)
        self.root = ElementTree.fromstring(path.read_text(), ElementTree.XMLParser(target=builder))
        self.words = self.texts(self.root)

    def texts(self, part: ElementTree.Element) -> list[str]:
        """In the order of drawing."""
        return [(element.text or "").strip() for element in part.iter() if element.tag is ElementTree.Comment]

    def top_axis(self) -> list[str]:
        """Tick labels and then the axis label."""
        return self.texts(self.part("axes_2"))

    def part(self, name: str) -> ElementTree.Element:
        return next(element for element in self.root.iter() if element.get("id") == name)

    def count(self, prefix: str) -> int:
        return sum((element.get("id") or "").startswith(prefix) for element in self.root.iter())

    def line(self, name: str) -> np.ndarray:
        """Vertices [points, 2] in SVG units, y pointing down."""
        path = next(element.get("d") for element in self.part(name).iter() if element.get("d"))
        return np.array(re.findall(r"[ML] (\S+) (\S+)", path or ""), np.float64)

    def band(self, name: str) -> np.ndarray:
        """Heights [points, 2] of the lower and the upper edge, y pointing down."""
        vertices = self.line(name) + np.array([0.0, self.dot(name)[1]])
        places = np.unique(vertices[:, 0])
        heights = [vertices[vertices[:, 0] == place, 1] for place in places]
        return np.array([(height.max(), height.min()) for height in heights])

    def dot(self, name: str) -> np.ndarray:
        use = next(element for element in self.part(name).iter() if element.get("x"))
        return np.array([use.get("x"), use.get("y")], np.float64)


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_one_line_a_curve_and_a_band_only_with_several_seeds(tmp_path: Path, count: int, seeds: int) -> None:
    curves = [falling(f"policy {i}", seeds, seed=i) for i in range(count)]
    drawn = Drawn(asl_curve(curves, tmp_path / "a.svg", title="Pendulum-v1"))
    assert drawn.count("curve-") == count
    assert drawn.count("band-") == (count if seeds > 1 else 0)
    assert set(drawn.words) >= {"Pendulum-v1", *(curve.label for curve in curves)}
    assert ("one seed" in drawn.words) == (seeds == 1)


def test_bands_of_many_curves_are_lighter(tmp_path: Path) -> None:
    def opacity(count: int) -> float:
        curves = [falling(f"policy {i}", 4, seed=i) for i in range(count)]
        drawn = Drawn(asl_curve(curves, tmp_path / "a.svg", title=""))
        return float(re.findall(r"opacity: ([\d.]+)", ElementTree.tostring(drawn.part("band-0"), "unicode"))[0])

    assert opacity(1) == opacity(4) > opacity(6) > opacity(8) > 0


def test_lines_are_the_means_and_the_dot_lies_on_its_line(tmp_path: Path) -> None:
    curves = [falling("a", 3, trained_length=4), falling("b", 3, trained_length=5, seed=1), falling("c", 3)]
    drawn = Drawn(asl_curve(curves, tmp_path / "a.svg", title=""))
    lines = np.concatenate([drawn.line(f"curve-{i}") for i in range(3)])
    means = np.concatenate([curve.returns.mean(0) for curve in curves])
    for drawn_numbers, numbers, rises in ((lines[:, 0], np.tile(GRID, 3), 1), (lines[:, 1], means, -1)):
        scale, start = np.polyfit(numbers, drawn_numbers, 1)
        np.testing.assert_allclose(drawn_numbers, start + scale * numbers, atol=1e-3)
        assert np.sign(scale) == rises
    at_4, at_6 = GRID.index(4), GRID.index(6)
    np.testing.assert_allclose(drawn.dot("trained-0"), drawn.line("curve-0")[at_4], atol=1e-3)
    middle = drawn.line("curve-1")[[at_4, at_6]].mean(0)
    np.testing.assert_allclose(drawn.dot("trained-1"), middle, atol=1e-3)
    assert drawn.count("trained-") == 2


def test_trained_lengths_can_be_left_out_or_lie_outside(tmp_path: Path) -> None:
    hidden = Drawn(asl_curve([falling("a", 1, 4)], tmp_path / "a.svg", title="", trained_at=False))
    outside = Drawn(asl_curve([falling("a", 1, 31)], tmp_path / "b.svg", title=""))
    assert hidden.count("trained-") == outside.count("trained-") == 0


@pytest.mark.parametrize("band", ["range", "interval"])
def test_band_spans_what_the_note_says(tmp_path: Path, band: figures.Band) -> None:
    """The band's edges against the line, in the scale that the line itself gives."""
    curve = falling("a", 6)
    drawn = Drawn(asl_curve([curve], tmp_path / "a.svg", title="", band=band))
    scale, start = np.polyfit(curve.returns.mean(0), drawn.line("curve-0")[:, 1], 1)
    if band == "range":
        expected = np.stack([curve.returns.min(0), curve.returns.max(0)], axis=1)
        assert "mean and range over 6 seeds" in drawn.words
    else:
        intervals = [bootstrap(column) for column in curve.returns.T]
        expected = np.array([(interval.low, interval.high) for interval in intervals])
        assert "mean and 95 % interval over 6 seeds" in drawn.words
    np.testing.assert_allclose(drawn.band("band-0"), start + scale * expected, atol=1e-3)


def test_score_is_computed_on_the_grid_kept_when_given_and_absent_elsewhere(tmp_path: Path) -> None:
    x = np.array(GRID)
    perfect, given_ = np.full((1, 16), -200.0), Interval(0.5, 0.25, 0.75, 4)
    curves = [
        Curve("perfect", x, perfect),
        Curve("given", x, perfect - 100, fas=given_),
        Curve("elsewhere", x[:5], perfect[:, :5] - 200),
    ]
    drawn = Drawn(asl_curve(curves, tmp_path / "a.svg", title="", reference=PENDULUM))
    assert [word for word in drawn.words if word.startswith("FAS")] == ["FAS 0.50 [0.25, 0.75]", "FAS 0.97"]
    assert curves[0].fas is None
    assert not [w for w in Drawn(asl_curve(curves[:1], tmp_path / "b.svg", title="")).words if "FAS" in w]


def test_score_hairlines_only_inside_the_figure(tmp_path: Path) -> None:
    x = np.array(GRID)
    both = Curve("both", x, np.linspace(-100.0, -1600.0, 16)[None])
    neither = Curve("neither", x, np.linspace(-300.0, -400.0, 16)[None])
    drawn = Drawn(asl_curve([both], tmp_path / "a.svg", title="", reference=PENDULUM))
    assert drawn.count("score-") == 2
    scale, start = np.polyfit(both.returns[0], drawn.line("curve-0")[:, 1], 1)
    np.testing.assert_allclose(drawn.line("score-0")[:, 1], start - 1550 * scale, atol=1e-3)
    np.testing.assert_allclose(drawn.line("score-1")[:, 1], start - 200 * scale, atol=1e-3)
    assert Drawn(asl_curve([neither], tmp_path / "b.svg", title="", reference=PENDULUM)).count("score-") == 0


def test_the_known_optimum_is_a_line_in_the_curves_scale(tmp_path: Path) -> None:
    """Above all curves, so that the axes must grow for it; its name stands above its left end, inside the figure."""
    x = np.array(GRID)
    curve = Curve("SAC", x, np.linspace(-300.0, -400.0, 16)[None])
    optimum = np.linspace(-100.0, -250.0, 16)
    drawn = Drawn(asl_curve([curve], tmp_path / "a.svg", title="", reference=PENDULUM, optimum=(GRID, optimum)))
    scale = np.polyfit(curve.returns[0], drawn.line("curve-0")[:, 1], 1)
    line = drawn.line("optimum")
    np.testing.assert_allclose(line[:, 1], np.polyval(scale, optimum), atol=1e-3)
    np.testing.assert_allclose(line[:, 0], drawn.line("curve-0")[:, 0], atol=1e-3)
    assert drawn.texts(drawn.part("optimum-name")) == ["known optimum"]
    assert drawn.count("score-") == 0
    assert line[:, 1].min() - drawn.line("patch_2")[:, 1].min() > 11  # room for the name
    assert Drawn(asl_curve([curve], tmp_path / "b.svg", title="")).count("optimum") == 0


def test_second_axis_reads_the_first_in_seconds(tmp_path: Path) -> None:
    """The ticks below stand at 1, 5, 10, ... 30, at 1, 5, ... 30 and at 0, 2, ... 8 primitive steps."""
    curve, late = falling("a", 1), Curve("a", np.arange(9), np.zeros((1, 9)))
    rarer = Drawn(asl_curve([curve], tmp_path / "a.svg", title="", step_seconds=0.05))
    assert rarer.texts(rarer.part("matplotlib.axis_3"))[:-1] == ["1", "5", "10", "15", "20", "25", "30"]
    assert rarer.top_axis() == ["20", "4", "2", "1.3", "1", "0.8", "0.67", "decisions per second"]
    random = Drawn(interval_curve([curve], tmp_path / "i.svg", title="", step_seconds=0.008))
    assert random.top_axis()[:3] == ["125", "42", "23"]
    assert random.top_axis()[-1] == "mean decisions per second"
    delayed = Drawn(delay_curve([late], tmp_path / "d.svg", title="", step_seconds=0.008))
    assert delayed.top_axis() == ["0", "16", "32", "48", "64", "delay (ms)"]
    plain = Drawn(asl_curve([curve], tmp_path / "p.svg", title=""))
    assert "decisions per second" not in plain.words


def test_many_or_long_labels_go_to_a_legend(tmp_path: Path) -> None:
    few = [falling(f"policy {i}", 1) for i in range(8)]
    many = [falling(f"policy {i}", 1) for i in range(9)]
    long = [falling("a policy whose name does not end soon enough", 1)]
    for curves, legend in ((few, False), (many, True), (long, True)):
        path = asl_curve(curves, tmp_path / "a.svg", title="", reference=PENDULUM)
        drawn = Drawn(path)
        assert (drawn.count("legend_") == 1) == legend
        assert sum(word.startswith(curves[-1].label) for word in drawn.words) == 1
        assert drawn.count("curve-") == len(curves)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 250), st.sampled_from([17.0, 29.0])), min_size=1, max_size=8))
def test_labels_neither_overlap_nor_leave_the_figure(labels: list[tuple[float, float]]) -> None:
    wanted, heights = (np.array(column) for column in zip(*sorted(labels), strict=True))
    places = _spread(wanted, heights, 252.0)
    low, high = places - heights / 2, places + heights / 2
    assert low[0] >= -1e-9
    assert high[-1] <= 252 + 1e-9
    assert np.all(low[1:] >= high[:-1] - 1e-9)


def test_labels_move_only_as_far_as_they_must() -> None:
    heights = np.array([20.0, 20.0, 20.0])
    apart = np.array([15.0, 100.0, 200.0])
    np.testing.assert_allclose(_spread(apart, heights, 252.0), apart)
    np.testing.assert_allclose(_spread(np.array([50.0, 50.0, 200.0]), heights, 252.0), [40, 60, 200])
    np.testing.assert_allclose(_spread(np.zeros(3), heights, 252.0), [10, 30, 50])


def test_label_order_follows_the_ends_and_among_equal_ends_the_means() -> None:
    ends, means = np.array([10.0, 100.0, 11.0, 12.0]), np.array([3.0, 0.0, 2.0, 1.0])
    np.testing.assert_array_equal(_upwards(ends, means), [3, 2, 0, 1])


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([-1500, -500, 0], ["\u22121,500", "\u2212500", "0"]),
        ([0, 15000], ["0", "15,000"]),
        ([0, 50_000, 100_000], ["0", "50k", "100k"]),
        ([0, 250_000, 1_000_000], ["0", "0.25M", "1M"]),
        ([0.2, 0.4], ["0.2", "0.4"]),
        ([-0.0], ["0"]),
        ([], []),
        ([-1197.5, -1198.0, -1198.5], ["\N{MINUS SIGN}1,197.5", "\N{MINUS SIGN}1,198.0", "\N{MINUS SIGN}1,198.5"]),
    ],
)
def test_axis_numbers(values: list[float], texts: list[str]) -> None:
    assert _numbers(np.array(values, np.float64)) == texts


def test_png_is_sharp_and_nothing_touches_its_edge(tmp_path: Path) -> None:
    """The title and the labels are wider than the axes, and one file has every part."""
    curves = [falling(f"a policy of some thirty letters {i}"[:32], 3, 4, seed=i) for i in range(5)]
    title = "A title that goes on for longer than the axes are wide, as titles do"
    path = asl_curve(curves, tmp_path / "new" / "folder" / "a.png", title=title, reference=PENDULUM, step_seconds=0.05)
    assert path == tmp_path / "new" / "folder" / "a.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.info["dpi"]) >= 150
        assert image.width >= 1200
        assert image.height >= 800
        pixels = np.asarray(image.convert("RGB"))
    for edge in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
        assert np.all(edge == 255)
    assert np.any(pixels < 100)


def test_each_suffix_writes_its_format(tmp_path: Path) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = learning_curves([falling("a", 2)], str(tmp_path / f"a{suffix}"), title="")
        assert path == tmp_path / f"a{suffix}"
        assert path.read_bytes().startswith(magic)


def test_learning_curves_may_end_at_different_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(0, 1_000_001, 50_000)
    curves = [
        Curve("whole", steps, rng.normal(size=(4, 21))),
        Curve("half", steps[:11], rng.normal(size=(1, 11))),
    ]
    drawn = Drawn(learning_curves(curves, tmp_path / "a.svg", title="Hopper-v5"))
    whole, half = drawn.line("curve-0"), drawn.line("curve-1")
    assert (len(whole), len(half)) == (21, 11)
    np.testing.assert_allclose(half[:, 0], whole[:11, 0], atol=1e-3)
    assert {"environment steps", "1M", "mean and range over 1 to 4 seeds"} <= set(drawn.words)


def test_what_learning_began_with_is_a_line_in_the_curves_scale(tmp_path: Path) -> None:
    """Above all that was learnt, so that the axes must grow for it."""
    curve = Curve("DS4-AC", np.arange(0, 5000, 1000), np.array([[10.0, 30, 20, 40, 50]]))
    drawn = Drawn(learning_curves([curve], tmp_path / "a.svg", title="", level=80.0))
    line, level = drawn.line("curve-0"), drawn.line("level")
    up = np.polyfit(curve.returns[0], line[:, 1], 1)
    np.testing.assert_allclose(level[:, 1], np.polyval(up, 80), atol=1e-3)
    inside = drawn.line("patch_2")[:, 1]  # the axes
    assert inside.min() < level[0, 1] < inside.max()
    assert "one seed  ·  dotted: the offline policies" in drawn.words
    assert Drawn(learning_curves([curve], tmp_path / "b.svg", title="")).count("level") == 0


ASKED = Curve(
    "DT", np.array([500.0, 1000.0, 2000.0, 3000.0]), np.array([[700.0, 950, 1500, 1700], [800, 1050, 1600, 1800]])
)


def test_the_diagonal_is_where_achieved_equals_asked(tmp_path: Path) -> None:
    """In the scales that the curve gives: it runs over all asked returns, and is named."""
    drawn = Drawn(prompt_curve([ASKED], tmp_path / "a.svg", title="", data=(100.0, 2500.0), target=2000.0))
    curve, line = drawn.line("curve-0"), drawn.line("diagonal")
    across, up = (np.polyfit(numbers, curve[:, k], 1) for k, numbers in ((0, ASKED.x), (1, ASKED.returns.mean(0))))
    np.testing.assert_allclose(line[0], [np.polyval(across, 500), np.polyval(up, 500)], atol=1e-3)
    slope = np.diff(line, axis=0)[-1]
    assert slope[1] / slope[0] == pytest.approx(up[0] / across[0], rel=1e-4)
    assert "achieved = asked" in drawn.words
    assert {"return asked for", "return achieved", "1,500"} <= set(drawn.words)
    inside = drawn.line("patch_2")[:, 1]  # the axes
    top = np.polyval(up, 2500)  # what the data supports is in sight, and not much more
    assert inside.min() < top < inside.min() + 0.08 * np.ptp(inside)


def test_the_datas_returns_are_shaded_and_the_default_is_marked(tmp_path: Path) -> None:
    drawn = Drawn(prompt_curve([ASKED], tmp_path / "a.svg", title="", data=(1000.0, 2500.0), target=2000.0))
    curve, shade = drawn.line("curve-0"), drawn.line("data")
    across = np.polyfit(ASKED.x, curve[:, 0], 1)
    np.testing.assert_allclose([shade[:, 0].min(), shade[:, 0].max()], np.polyval(across, [1000, 2500]), atol=1e-3)
    np.testing.assert_allclose(drawn.dot("target-0"), curve[2], atol=1e-3)
    (note,) = [word for word in drawn.words if "shaded" in word]
    assert note == "mean and range over 2 seeds  ·  shaded: returns in the data  ·  ● asked for by default"
    plain = Drawn(prompt_curve([ASKED], tmp_path / "b.svg", title="", target=1500.0))
    assert plain.count("data") == plain.count("target-") == 0
    assert "mean and range over 2 seeds" in plain.words


def test_every_asked_return_has_its_dot(tmp_path: Path) -> None:
    drawn = Drawn(prompt_curve([ASKED], tmp_path / "a.svg", title=""))
    dots = [e for e in drawn.part("asked-0").iter() if e.get("x")]
    found = np.array([[e.get("x"), e.get("y")] for e in dots], np.float64)
    np.testing.assert_allclose(found, drawn.line("curve-0"), atol=1e-3)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1, 0.4, 0.9], [0.05, 0.4, 0.65]),
        ([500, 1000, 3000], [500, 1000, 3000]),
        ([500, 1000, 3000], [9000, 9500, 9900]),
        ([-1500, -150], [-1400, -1450]),
        ([-300, 500], [-1683, -1683]),
        ([5], [4]),
    ],
)
def test_the_diagonals_name_stays_inside(tmp_path: Path, x: list[float], y: list[float]) -> None:
    """Whatever is asked and achieved; without room for it the line below the title says what the diagonal is."""
    curve = Curve("DT", np.array(x, float), np.array([y], float))
    drawn = Drawn(prompt_curve([curve], tmp_path / "a.svg", title="Hopper-v5", data=(x[0], x[0] + 0.1)))
    if drawn.count("diagonal-name") == 0:
        assert ("dashed: achieved = asked" in " ".join(drawn.words)) == (len(x) > 1)
        return
    place = next(e.get("transform") for e in drawn.part("diagonal-name").iter() if e.get("transform"))
    left, low, angle = map(float, re.findall(r"translate\((\S+) (\S+)\) rotate\((\S+)\)", place or "")[0])
    along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    corners = np.array([left, low]) + np.array([0 * along, 76 * along, 7 * along[::-1], 76 * along - [0, 7]])
    axes = drawn.line("patch_2")
    assert np.all(corners[:, 0] > axes[:, 0].min())
    assert np.all(corners[:, 0] < axes[:, 0].max())
    assert np.all(corners[:, 1] > axes[:, 1].min())
    assert np.all(corners[:, 1] < axes[:, 1].max())


@pytest.mark.parametrize(("x", "words"), [([3600, 72000], "less"), ([-900, -500], "more")])
def test_a_diagonal_out_of_sight_is_told(tmp_path: Path, x: list[float], words: str) -> None:
    curve = Curve("DT", np.array(x, float), np.array([[1500.0, 2000.0]]))
    drawn = Drawn(prompt_curve([curve], tmp_path / "a.svg", title="", data=(0.0, 3000.0)))
    assert f"one seed  ·  achieved is {words} than asked throughout  ·  shaded: returns in the data" in drawn.words


def test_times_start_at_zero_and_say_what_they_are(tmp_path: Path) -> None:
    curve = Curve("DS4", np.array([100, 200, 300]), np.array([[2.0, 2.5, 2.0], [2.0, 2.5, 3.0]]))
    drawn = Drawn(history_curve([curve], tmp_path / "a.svg", title="t", stretch=100))
    assert {"0", "medians of 100 actions: mean and range over 2 episodes", "steps of history"} <= set(drawn.words)


def test_one_point_shows_as_a_dot(tmp_path: Path) -> None:
    point = Curve("a", np.array([3]), np.array([[1.5]]))
    drawn = Drawn(curve_figure([point], tmp_path / "a.svg", title="", xlabel="x"))
    shapes = [element.get("d") or "" for element in drawn.part("curve-0").iter()]
    assert any(" C " in f" {shape}".replace("\n", " ") for shape in shapes)  # a circle of Bezier arcs


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_same_data_same_bytes_whatever_the_users_settings(tmp_path: Path, suffix: str) -> None:
    curves = [falling("a", 3, 4), falling("b", 3, 1, seed=1)]
    first = asl_curve(curves, tmp_path / f"a{suffix}", title="t", reference=PENDULUM).read_bytes()
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black", "font.size": 30}):
        before = dict(mpl.rcParams)
        second = asl_curve(curves, tmp_path / f"b{suffix}", title="t", reference=PENDULUM).read_bytes()
        assert dict(mpl.rcParams) == before
    assert first == second


def test_import_is_light_and_pyplot_is_never_touched(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np\n"
        "from legato.evaluation.figures import Curve, asl_curve\n"
        "assert 'matplotlib' not in sys.modules and 'scipy.stats' not in sys.modules\n"
        "curve = Curve('a', np.arange(1, 4), np.zeros((2, 3)))\n"
        "asl_curve([curve], sys.argv[1], title='', step_seconds=0.1)\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    source = str(Path(figures.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], check=True, env=environment)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_label_colours_can_be_read_on_white() -> None:
    """Contrast against white of at least 4.5 (WCAG 2.1, 1.4.3), and no two lines alike."""
    for _, text in figures.COLOURS:
        channels = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, text
    assert len({line for line, _ in figures.COLOURS}) == len(figures.COLOURS)


@pytest.mark.parametrize(
    ("x", "returns", "message"),
    [
        (np.arange(3), np.zeros((2, 4)), r"'bad' has x of shape \(3,\) and returns of shape \(2, 4\)"),
        (np.arange(3), np.zeros(3), "must be"),
        (np.zeros((1, 3)), np.zeros((1, 3)), "must be"),
        (np.arange(0), np.zeros((2, 0)), "must be"),
        (np.arange(3), np.zeros((0, 3)), "must be"),
        (np.arange(3), np.array([[0.0, np.nan, 0.0]]), "'bad' holds NaN"),
        (np.array([1.0, np.inf]), np.zeros((1, 2)), "'bad' holds NaN"),
        (np.array([1, 2, 2]), np.zeros((1, 3)), "'bad' .* increase"),
    ],
)
def test_curves_that_do_not_fit_are_refused_in_one_line(x: np.ndarray, returns: np.ndarray, message: str) -> None:
    with pytest.raises(LegatoError, match=message) as caught:
        Curve("bad", x, returns)
    assert "\n" not in str(caught.value)


def test_nothing_to_draw_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LegatoError, match="no curves"):
        asl_curve([], tmp_path / "a.png", title="")
    with pytest.raises(LegatoError, match="no curves"):
        prompt_curve([], tmp_path / "a.png", title="")
    with pytest.raises(LegatoError, match=r"a\.jpg.*\.png, \.svg, \.pdf"):
        asl_curve([falling("a", 1)], tmp_path / "a.jpg", title="")
    assert list(tmp_path.iterdir()) == []
