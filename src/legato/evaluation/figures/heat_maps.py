"""Attention as heat maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from legato.algorithms.protocol import Token
from legato.errors import LegatoError
from legato.evaluation.attention import KINDS, SAME, EpisodeAttention
from legato.evaluation.figures.sheet import Sheet
from legato.evaluation.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILION,
    apply_style,
    drawable,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OF_KIND = {"s": BLUE, "a": VERMILION, "r": PURPLE, "R": PURPLE, "V": "#9A9A9A", "g": GREEN}
OF_SHARE = {SAME: ORANGE, **{name: OF_KIND[kind] for kind, name in KINDS.items()}}
HEAT = ("#FFFFFF", "#A9D5F0", "#3C93C8", "#00598F", "#001D33")  # of attention, from none to most
UNSEEN, EDGE = "#E9E9E9", "#9C9C9C"


def attention(
    found: EpisodeAttention,
    path: str | Path,
    *,
    title: str,
    layers: Sequence[int] = (),
    heads: Sequence[int] = (),
) -> Path:
    """A heat map for each layer and head, numbered from 1, or for the ones given: predictions down, tokens across.

    What is not seen is grey: later tokens, and values. Below each map stands what the newest step's predictions attend
    to, by distance and kind. Raises LegatoError for a layer or head that there is not, and a suffix unknown to figures.
    """
    path = drawable(path)
    layers = _chosen("layers", layers, found.weights.shape[0])
    heads = _chosen("heads", heads, found.weights.shape[1])
    across, down = len(found.tokens), len(found.predicted)
    side = {1: 400.0, 2: 250.0, 3: 190.0}.get(len(heads), 150.0)
    pitch = side / across  # of a token, in points
    named = pitch >= 5.6
    upright = named and pitch < 5.2 * max(len(token.name) for token in found.tokens)
    room = 24.0 if upright else 16.0 if named else 8.0  # for names between map and bars
    height, bars, gap, between = down * pitch, 44.0, 20.0, 36.0 + room
    left, top = 52.0, 52.0
    with apply_style():
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm

        sheet = Sheet(left + len(heads) * (side + gap) + 40, top + len(layers) * (height + bars + between) + 30)
        colours = LinearSegmentedColormap.from_list("attention", HEAT)
        shown = found.weights[np.ix_([i - 1 for i in layers], [i - 1 for i in heads])]
        most = float(np.quantile(shown[:, :, found.sees], 0.995))  # the first rows see few tokens, and these much
        shade = PowerNorm(0.5, 0.0, most, clip=True)
        shares, even = found.shares(found.weights), found.shares(found.even)[0, 0]
        image: Any = None
        top_share = np.ceil(4 * max(shares.sum(axis=-1).max(), even.sum(axis=-1).max())) / 4
        for row, layer in enumerate(layers):
            for column, head in enumerate(heads):
                x, y = left + column * (side + gap), top + row * (height + bars + between) + 14
                sheet.write(x, y - 8, f"layer {layer}, head {head}", fontsize=9.5, color=INK)
                axes = sheet.axes(x, y, side, height)
                axes.set_facecolor(UNSEEN)
                weights = np.ma.array(found.weights[layer - 1, head - 1], mask=~found.sees)
                image = axes.imshow(weights, cmap=colours, norm=shade, aspect="auto", interpolation="nearest")
                image.set_gid(f"map-{layer}-{head}")
                _mark_steps(axes, found, pitch)
                _name_tokens(axes, found, named, min(8.5, 0.95 * pitch), upright, first=column == 0)
                below = sheet.axes(x, y + height + room, side, bars)
                _draw_shares(below, found, shares[layer - 1, head - 1], even, top_share, first=column == 0)
        _draw_scale(sheet, image, left + len(heads) * (side + gap), top + 14, min(height, 130.0))
        _draw_keys(sheet, found, left, top + len(layers) * (height + bars + between) + 6)
        notes = (found.where, "row: a prediction", "column: what it attends to", "bars: the newest step's, on average")
        sheet.head(title, "  ·  ".join(notes), above=top)
        save(sheet.figure, path)
    return path


def _chosen(what: str, given: Sequence[int], count: int) -> Sequence[int]:
    for number in given:
        if not 1 <= number <= count:
            raise LegatoError(f"{what} are numbered from 1 to {count}; {number} was given")
    return given or range(1, count + 1)


def _runs(tokens: Sequence[Token]) -> list[tuple[int | None, float, float]]:
    """Where each step's tokens begin and end, in places; a goal's is None."""
    found: list[tuple[int | None, float, float]] = []
    for i, token in enumerate(tokens):
        if found and found[-1][0] == token.step:
            found[-1] = (token.step, found[-1][1], i + 0.5)
        else:
            found.append((token.step, i - 0.5, i + 0.5))
    return found


def _ago(step: int | None, newest: int) -> str:
    """`t−2`, `t`, `goal`."""
    if step is None:
        return "goal"
    return "t" if step == newest else f"t\N{MINUS SIGN}{newest - step}"


def _mark_steps(axes: Axes, found: EpisodeAttention, pitch: float) -> None:
    """Light lines between steps, and a strip of colour along each side that tells the kinds apart."""
    for _, low, _ in _runs(found.tokens)[1:]:
        axes.axvline(low, color=EDGE, linewidth=0.6)
    for _, low, _ in _runs(found.predicted)[1:]:
        axes.axhline(low, color=EDGE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(True)
    thick = 3.2 / pitch  # in tokens
    across, down = thick / len(found.tokens), thick / len(found.predicted)  # in sizes of the axes
    _strip(axes, found.tokens, axes.get_xaxis_transform(), lambda i: ((i - 0.5, -down), 1, down))
    _strip(axes, found.predicted, axes.get_yaxis_transform(), lambda i: ((-across, i - 0.5), across, 1))


def _strip(axes: Axes, tokens: Sequence[Token], transform: Any, place: Callable[[int], tuple[Any, ...]]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches = [Rectangle(*place(i)) for i in range(len(tokens))]
    colours = [OF_KIND[token.kind] for token in tokens]
    strip = PatchCollection(patches, facecolors=colours, edgecolors=colours, linewidths=0.1, transform=transform)
    strip.set_clip_on(False)
    axes.add_collection(strip, autolim=False)


def _name_tokens(axes: Axes, found: EpisodeAttention, named: bool, size: float, upright: bool, first: bool) -> None:
    """Every token by its name where there is room, otherwise the predictions' steps."""
    axes.tick_params(length=0, pad=5, labelsize=size if named else 8.5)
    newest = found.steps - 1
    if named:
        names = [token.name for token in found.tokens]
        axes.set_xticks(range(len(found.tokens)), names, rotation=90 if upright else 0)
    else:
        axes.set_xticks([])
    runs = _runs(found.predicted)
    if named and len(runs) < len(found.predicted):
        axes.set_yticks(range(len(found.predicted)), [token.name if first else "" for token in found.predicted])
    else:
        names = [_ago(step, newest) if first else "" for step, *_ in runs]
        axes.set_yticks([(low + high) / 2 for _, low, high in runs], names)


def _draw_shares(
    axes: Axes, found: EpisodeAttention, share: np.ndarray, even: np.ndarray, top: float, first: bool
) -> None:
    """Bars under the steps that they are of, stacked by kind; a dash where a head that attends evenly would be."""
    runs, newest = _runs(found.tokens), found.steps - 1
    middles = np.array([(low + high) / 2 for _, low, high in runs])
    widths = np.array([0.72 * (high - low) for _, low, high in runs])
    rows = np.array([share[-1 if step is None else newest - step] for step, *_ in runs])  # [runs, kinds]
    under = np.zeros(len(runs))
    for kind, heights in zip(found.kinds, rows.T, strict=True):
        axes.bar(middles, heights, widths, under, color=OF_SHARE[kind], linewidth=0)
        under = under + heights
    evenly = [even[-1 if step is None else newest - step].sum() for step, *_ in runs]
    axes.hlines(evenly, middles - 0.62 * widths, middles + 0.62 * widths, color=INK, linewidth=1.0)
    axes.set_xlim(-0.5, len(found.tokens) - 0.5)
    axes.set_ylim(0, top)
    ticks = np.linspace(0, top, 3 if top <= 0.5 else int(4 * top + 1.5))
    axes.set_yticks(ticks, [f"{100 * tick:g}{' %' if tick == top else ''}" if first else "" for tick in ticks])
    axes.tick_params(length=0, pad=4, labelsize=8)
    axes.grid(True, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xticks(middles, [_ago(step, newest) for step, *_ in runs], fontsize=8.5)


def _draw_scale(sheet: Sheet, image: Any, left: float, top: float, height: float) -> None:
    """What the shades stand for."""
    bar = sheet.axes(left, top, 9, height)
    sheet.figure.colorbar(image, cax=bar)
    most = image.norm.vmax
    ticks = [*(tick for tick in (0, 0.01, 0.05, 0.2, 0.5) if tick < 0.7 * most), most]
    bar.set_yticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), f"≥ {most:.2g}"])
    bar.tick_params(length=0, pad=4, labelsize=8)
    bar.set_title("weight", fontsize=8.5, color=FAINT, loc="left", pad=6)


def _draw_keys(sheet: Sheet, found: EpisodeAttention, left: float, top: float) -> None:
    """Which colour is which kind, in strips and bars."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = {token.kind for token in (*found.tokens, *found.predicted)}
    names = {kind: "values (hidden)" if kind == "V" else name for kind, name in KINDS.items() if kind in there}
    handles: list[Any] = [Patch(color=OF_KIND[kind], label=name, linewidth=0) for kind, name in names.items()]
    handles.append(Patch(color=OF_SHARE[SAME], label="the predicted number itself, earlier", linewidth=0))
    handles.append(Line2D([], [], color=INK, linewidth=1, label="evenly"))
    across, down = sheet.size
    place = {"loc": "upper left", "bbox_to_anchor": (left / across, 1 - top / down), "borderaxespad": 0, "borderpad": 0}
    style = {"handlelength": 0.9, "handleheight": 0.9, "handletextpad": 0.5, "columnspacing": 1.4, "fontsize": 9}
    sheet.figure.legend(handles=handles, ncols=len(handles), frameon=False, **place, **style)
