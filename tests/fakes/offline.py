"""From logs."""

from __future__ import annotations

from typing import Any

from tests.fakes.common import init, learn, new_policy, plan_length, policy
from tests.fakes.config import Counter as Config

from legato.data import dataset_statistics
from legato.data.windows import BatchSpec

__all__ = ["batches", "init", "new_policy", "plan_length", "policy", "select_data", "statistics", "update"]


def update(config: Config, learner: Any, batch: Any, key: Any) -> Any:
    return learn(config, learner, batch.returns_to_go, key)


def batches(config: Config) -> BatchSpec:
    return BatchSpec(config.batch_size, 1)


def select_data(config: Config, data: Any, limit: int | None = None) -> Any:
    return data


def statistics(config: Config, spec: Any, data: Any) -> Any:
    return dataset_statistics.of(data, spec)
