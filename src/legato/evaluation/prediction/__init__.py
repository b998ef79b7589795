"""How far ahead a model foretells what episodes do: the measure, who is measured, and what came of it."""

from __future__ import annotations

from legato.evaluation.prediction.experiment import predict
from legato.evaluation.prediction.likelihood_curve import (
    Prediction,
    Ruler,
    Samples,
    lasting,
    likelihood,
    measure,
    references,
)
from legato.evaluation.prediction.models import Rival, of_data, of_ensemble, of_model, rival
from legato.evaluation.prediction.report import SHOWN, Foretold, draw, shown, table

__all__ = ["SHOWN", "Foretold", "Prediction", "Rival", "Ruler", "Samples", "draw", "lasting", "likelihood", "measure"]
__all__ += ["of_data", "of_ensemble", "of_model", "predict", "references", "rival", "shown", "table"]
