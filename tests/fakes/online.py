"""By acting."""

from __future__ import annotations

from typing import Any

from tests.fakes.common import init, learn, new_policy, plan_length, policy
from tests.fakes.config import Counter as Config

from legato.data.replay import ReplayBatchSpec

__all__ = ["batches", "init", "new_policy", "plan_length", "policy", "update"]


def update(config: Config, learner: Any, batch: Any, key: Any) -> Any:
    return learn(config, learner, batch[0].reward, key)


def batches(config: Config) -> ReplayBatchSpec:
    return ReplayBatchSpec(config.batch_size)
