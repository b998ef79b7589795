"""A pytest plugin: what each file of tests costs in CPU seconds, and a budget for the whole suite.

Wall time is other people's too; CPU seconds (user and system, of this process and of those it started and waited for)
are the suite's own, and those of all workers of pytest-xdist are added up. The budget, `cpu_budget` in pyproject.toml,
counts only where the whole suite was run: then a session that needs more fails, whatever its tests say.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

SHOWN = 25
CPU = pytest.StashKey[Counter[str]]()
BEFORE = "(imports and collection)"


def used() -> float:
    """CPU seconds of this process and of its ended children so far."""
    return sum(os.times()[:4])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("cpu_budget", "CPU seconds that the whole suite may take; 0: any number", default="0")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CPU] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    before = used()
    result = yield
    item.config.stash[CPU][item.nodeid.split("::")[0]] += used() - before  # type: ignore[operator]
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    for file, seconds in getattr(node, "workeroutput", {}).get("cpu", {}).items():
        node.config.stash[CPU][file] += seconds


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config, spent = session.config, session.config.stash[CPU]
    if hasattr(config, "workeroutput"):
        spent[BEFORE] = used() - spent.total()  # type: ignore[assignment]
        config.workeroutput["cpu"] = dict(spent)  # type: ignore[attr-defined]
    elif not config.getoption("numprocesses", None):
        spent[BEFORE] = used() - spent.total()  # type: ignore[assignment]
    if over(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def over(config: pytest.Config) -> str:
    """What is said where the whole suite took more than it may."""
    spent, budget = config.stash[CPU].total(), float(config.getini("cpu_budget"))
    if not budget or spent <= budget or hasattr(config, "workeroutput") or not whole(config):
        return ""
    return f"the suite took {spent:.0f} CPU seconds of the {budget:.0f} in pyproject.toml (cpu_budget)"


def whole(config: pytest.Config) -> bool:
    """Was every test asked for?"""
    asked = {(config.invocation_params.dir / each).resolve() for each in config.args}
    everything = {(config.rootpath / each).resolve() for each in config.getini("testpaths")} or {Path(config.rootpath)}
    some = ("keyword", "markexpr", "deselect", "lf", "failedfirst", "ignore", "ignore_glob", "maxfail", "collectonly")
    return asked == everything and not any(config.getoption(name, None) for name in some)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    spent = config.stash[CPU]
    if spent.total() < 10 and not over(config):  # of a few tests nobody asks
        return
    terminalreporter.section("CPU seconds by file")
    for file, seconds in spent.most_common(SHOWN):
        terminalreporter.line(f"{seconds:7.1f}  {file}")
    terminalreporter.line(f"{spent.total():7.1f}  of {len(spent)} files")
    if said := over(config):
        terminalreporter.line(said, red=True)
