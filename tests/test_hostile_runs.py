"""Damaged and edited files of runs, policies and evaluations: one line each, and never read as what they are not."""

from __future__ import annotations

from tests import limits
from tests.hostile_runs import NAMES, tried


def test_whatever_is_done_to_a_run_is_refused_or_changes_nothing() -> None:
    found = tried(240)
    assert all(outcome.good for outcome in found), limits.report(found)
    refused = {name: sum(o.kind == "refused" for o in found if f"|{name}|" in o.case) for name in NAMES}
    assert min(refused.values()) >= 10, refused  # of 40 each
