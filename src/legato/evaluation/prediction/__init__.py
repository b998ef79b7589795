"""How far ahead a model predicts what episodes do: the measure, who is measured, and what came of it."""

from __future__ import annotations

from legato.evaluation.prediction.experiment import predict
from legato.evaluation.prediction.likelihood_curve import (
    HistogramBins,
    Prediction,
    Samples,
    at_least,
    likelihood,
    measure,
    references,
)
from legato.evaluation.prediction.models import EnsembleBaseline, fit_baseline, of_data, of_ensemble, of_model
from legato.evaluation.prediction.report import SHOWN, PredictionReport, draw, shown, table

__all__ = [
    "SHOWN",
    "EnsembleBaseline",
    "HistogramBins",
    "Prediction",
    "PredictionReport",
    "Samples",
    "at_least",
    "draw",
    "likelihood",
    "measure",
]
__all__ += ["fit_baseline", "of_data", "of_ensemble", "of_model", "predict", "references", "shown", "table"]
