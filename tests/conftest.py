"""What all tests share: one device, one thread, shapes checked as they are annotated, and the probe environments."""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

pytest_plugins = ("tests.cpu_budget",)

# The numbers of a test must not depend on what else the machine has, nor on how many cores; and as most tests compile
# much and compute little, compiling is kept cheap: few optimisations, and the older code generator, which is done in
# half the time or less. Without AVX's fused products and sums rounding does not depend on how many numbers one
# operation takes at once. No program says from which line its parts came. The same holds for the commands that tests
# start.
FLAGS = ("force_host_platform_device_count=1", "cpu_multi_thread_eigen=false", "cpu_max_isa=SSE4_2")
FLAGS += ("backend_extra_options=xla_cpu_disable_new_fusion_emitters",)  # unknown ones of these are let pass
os.environ["XLA_FLAGS"] = " ".join(f"--xla_{flag}" for flag in FLAGS)
OPTIONS = {"jax_platforms": "cpu", "jax_disable_most_optimizations": True, "jax_traceback_in_locations_limit": 0}
for name, value in OPTIONS.items():
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)

# What was compiled in one test is found again in the next, by the other processes of this session and by the commands
# that tests start too, in a folder that goes when the first process does. Keeping a single operation takes longer than
# compiling it.
WORTH = 0.05  # seconds
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="legato-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(WORTH)
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH)

# The mathematics is run with every annotated shape and dtype enforced; what moves data between host and device is not,
# because it hands NumPy arrays to functions that are annotated for JAX's. As it adds to the cost of tracing, it is done
# by the tests of mathematics and by `conformance`, which traces every algorithm, and not again by those that train.
CHECKED = ("nn", "models", "losses", "planning", "algorithms", "conformance")
install_import_hook(["legato.nn", "legato.models", "legato.losses", "legato.algorithms"], "beartype.beartype")

from tests import probes  # noqa: E402

# Who runs the tests in the background may have signals ignored, which the library respects and processes inherit.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# Tracing makes many objects that live long, among which there is little to collect.
gc.freeze()
gc.set_threshold(50_000, 20, 100)

hypothesis.settings.register_profile("legato", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("legato")

probes.register()


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test, so that finite differences and transcriptions can be held to tight tolerances."""
    with jax.enable_x64(True):
        yield


MAPPINGS = 30_000  # of the 65,530 pieces of memory that Linux grants a process unless told otherwise


@pytest.fixture(autouse=True)
def few_compiled() -> Iterator[None]:
    """Every compiled function holds pieces of memory; a process that has used up its number of these crashes."""
    yield
    maps = Path("/proc/self/maps")
    if next(_tests) % 10 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()


_tests = itertools.count()


@pytest.fixture(autouse=True)
def signals_left_alone() -> Iterator[None]:
    """A test that leaves a handler behind would end this process in a later one."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes and dtypes in this test and what it sets up, or not."""
    room = item.path.relative_to(Path(__file__).parent).parts[0]
    jaxtyping.config.update("jaxtyping_disable", room not in CHECKED)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, as `--dist loadfile` asks; in `conformance` by family of algorithms, which read one another's runs."""
    if config.getvalue("dist") != "loadfile":
        return None

    class ByFileOrFamily(importlib.import_module("xdist.scheduler").LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("[")
            family = name.rstrip("]").split("-")[0]
            return f"conformance of {family}" if family and "/conformance/" in file else super()._split_scope(nodeid)

    return ByFileOrFamily(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The few long tests first: at the end, one of two processes would wait for the other."""
    items.sort(key=lambda item: "learning" not in item.path.parts)
