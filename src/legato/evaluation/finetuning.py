"""What came of a fine-tuning, as a figure in its run."""

from __future__ import annotations

from legato.training.learning_curve import learning_curve
from legato.training.run import Run


def with_figure(run: Run) -> Run:
    """The run, with the figure of its returns beside what it began with."""
    from legato.evaluation.figures import Curve, learning_curves

    steps, returns = learning_curve(run)
    title = f"{run.environment}: learning on by acting"
    curve = Curve(run.label, steps, returns)
    learning_curves([curve], run.path / "figures" / "finetune.png", title=title, level=float(returns[:, 0].mean()))
    return run
