"""The pages of the documentation that show whole programs: what they show works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.runs import rows
from tests.tiny import logs

import legato
from legato import algorithms, api

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "add-an-algorithm.md"


def test_the_algorithm_that_is_shown_trains_and_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.findall(r"`src/legato/algorithms/(linear/\w+\.py)`.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [name for name, _ in shown] == ["linear/__init__.py", "linear/config.py", "linear/linear.py"]
    for name, text in shown:
        (tmp_path / "linear").mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    monkeypatch.setattr(algorithms, "FOLDERS", (*algorithms.FOLDERS, "linear"))
    algorithms._entries.cache_clear()
    try:
        run = api.train("linear", dataset=logs(tmp_path / "logs.npz"), out=tmp_path / "run", updates=200, log_every=20,
                        eval_every=200, checkpoint_every=200, quiet=True)  # fmt: skip
        losses = [float(row["loss"]) for row in rows(run.path)]
        assert losses[-1] < 0.9 * losses[0]
        policy = legato.load(run.path)
        observation = np.zeros(run.spec.observation_size, np.float32)
        assert policy.act(policy.begin(), observation, length=3)[0].shape == (3, run.spec.action_size)
    finally:
        algorithms._entries.cache_clear()
