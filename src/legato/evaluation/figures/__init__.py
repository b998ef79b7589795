"""Figures for papers and READMEs: return against time lost or training done, safe for the colour-blind.

Every function takes plain arrays, writes one file and returns its path; the suffix (.png, .svg, .pdf) is the
format. Attention is drawn by `heat_maps`, the paths of episodes by `floor_plans`.
"""

from __future__ import annotations

from legato.evaluation.figures.curves import (
    asl_curve,
    delay_curve,
    history_curve,
    interval_curve,
    learning_curves,
    prediction_curve,
    prompt_curve,
)
from legato.evaluation.figures.drawing import curve_figure
from legato.evaluation.figures.panels import metric_panels
from legato.evaluation.figures.series import Band, Curve, TopAxis
from legato.evaluation.figures.style import COLOURS, METADATA, drawable

__all__ = [
    "COLOURS",
    "METADATA",
    "Band",
    "Curve",
    "TopAxis",
    "asl_curve",
    "curve_figure",
    "delay_curve",
    "drawable",
    "history_curve",
    "interval_curve",
    "learning_curves",
    "metric_panels",
    "prediction_curve",
    "prompt_curve",
]
