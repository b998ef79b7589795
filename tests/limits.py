"""What comes of reading a file that may be hostile, found out in a process of its own that has limits.

    found = run("tests.hostile:read", [str(path) for path in paths])
    print(report(found))

`run` starts one process that imports the function, and forks a worker for every case (or for `each` cases, where
a worker is dear). A worker that hangs or dies takes only itself along. Time is the worker's own: processor seconds, or
how long it slept without using any, so that a busy machine makes nothing a hang.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOOD = ("read", "refused")
KINDS = (*GOOD, "traceback", "stray", "garbled", "hang", "memory", "crash")
MIB = 1 << 20
LINE = 1000  # characters that one line may have


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    `read`: the function returned. `refused`: it raised a `LegatoError` of one printable line. The others are faults:
    any other exception (`traceback`), something written to stdout or stderr or a warning that is not the project's
    (`stray`), a message or warning that is more than one printable line (`garbled`), no end (`hang`), more memory than
    allowed or a MemoryError (`memory`), a process that died (`crash`).
    """

    case: Any
    kind: str
    said: str = ""
    peak: int = 0
    """bytes that the worker held at most, beyond what it held before"""
    seconds: float = 0.0
    """processor time"""

    @property
    def good(self) -> bool:
        return self.kind in GOOD


def allowed(path: str | Path) -> int:
    """Bytes that reading may take: three times the file, or all files of the folder, and 300 MB."""
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return 3 * sum(file.stat().st_size for file in files) + 300 * MIB


def run(
    function: str,
    cases: Sequence[Any],
    *,
    memory: Sequence[int] | None = None,
    seconds: float = 20.0,
    asleep: float = 5.0,
    space: int = 8 << 30,
    each: int = 1,
    environment: dict[str, str] | None = None,
) -> list[Outcome]:
    """Call `module:function` with each case, a value that JSON can hold, in workers that have limits.

    Args:
        memory: bytes that each case may take beyond what its worker held before; by default `allowed(case)`
        seconds: processor time that a case may take
        asleep: seconds that a case may wait for something without using the processor
        space: bytes of address space that a worker may take beyond what it has
        each: cases that one worker handles, one after another
        environment: variables of the process besides those of this one
    """
    memory = [allowed(case) for case in cases] if memory is None else memory
    limits = {"seconds": seconds, "asleep": asleep, "space": space, "each": each}
    order = {"function": function, "cases": list(zip(cases, memory, strict=True)), **limits}
    path = os.pathsep.join([str(ROOT), *sys.path])
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as found:
        json.dump(order, given)
        given.seek(0)
        subprocess.run(
            [sys.executable, "-c", "from tests import limits; limits._serve()"],
            stdin=given,
            stdout=found,
            env={**os.environ, **(environment or {}), "PYTHONPATH": path},
            cwd=ROOT,
            check=True,
        )
        found.seek(0)
        return [Outcome(**json.loads(line)) for line in found]


def report(outcomes: Iterable[Outcome], examples: int = 5) -> str:
    """A table of counts, the largest memory and the longest time, and a few of the faults."""
    outcomes = list(outcomes)
    count = Counter(outcome.kind for outcome in outcomes)
    lines = [f"{'cases':<16}{len(outcomes):>8}", *(f"{kind:<16}{count[kind]:>8}" for kind in KINDS)]
    if outcomes:
        lines.append(f"{'most memory':<16}{max(o.peak for o in outcomes) / MIB:>8.0f} MiB")
        lines.append(f"{'longest':<16}{max(o.seconds for o in outcomes):>8.2f} s of processor time")
    for kind in KINDS[len(GOOD) :]:
        for outcome in [o for o in outcomes if o.kind == kind][:examples]:
            lines.append(f"{kind}: {outcome.case}: {outcome.said.strip()[-600:]}")
    return "\n".join(lines)


# --- in the process of its own ---


def _serve() -> None:
    order = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")  # what the function prints must not mix with them
    module, _, name = order["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    cases, done = order["cases"], 0
    while done < len(cases):
        for outcome in _batch(function, cases[done : done + order["each"]], order):
            done += 1
            answers.write(json.dumps(asdict(outcome)) + "\n")
    answers.flush()


def _batch(function: Callable[[Any], Any], cases: list[Any], order: dict[str, Any]) -> list[Outcome]:
    """What came of these cases in one worker, up to the first that it did not survive."""
    ours, theirs = os.pipe()
    worker = os.fork()
    if worker == 0:
        try:
            os.close(ours)
            _work(function, cases, order["space"], theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    found: list[Outcome] = []
    read = bytearray()  # of answers, which may come several at once
    with os.fdopen(ours, "rb", buffering=0) as answers:
        for case, _ in cases:
            line, fault = _wait(worker, answers.fileno(), read, order["seconds"], order["asleep"])
            if fault is None and line:
                found.append(Outcome(case, **json.loads(line)))
                continue
            if fault is not None:
                os.kill(worker, signal.SIGKILL)
            _, status, used = os.wait4(worker, 0)
            found.append(Outcome(case, *(fault or _death(status)), seconds=used.ru_utime + used.ru_stime))
            return found
    os.waitpid(worker, 0)
    return found


def _death(status: int) -> tuple[str, str]:
    return "crash", f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def _wait(
    worker: int, answers: int, read: bytearray, seconds: float, asleep: float
) -> tuple[bytes, tuple[str, str] | None]:
    """The worker's next answer, empty where it ended, or why it is waited for no longer."""
    begun, last, since = _used(worker)[1], -1.0, time.monotonic()
    while b"\n" not in read:
        if select.select([answers], [], [], 0.1)[0]:
            part = os.read(answers, 1 << 16)
            if not part:
                return b"", None
            read += part
            continue
        state, used = _used(worker)
        if used - begun > seconds:
            return b"", ("hang", f"took more than {seconds:g} s of processor time")
        if used != last or state != "S":  # it works, or would if the machine let it
            last, since = used, time.monotonic()
        elif time.monotonic() - since > asleep:
            return b"", ("hang", f"waits for something, {asleep:g} s without using the processor")
    line, _, rest = bytes(read).partition(b"\n")
    read[:] = rest
    return line, None


def _used(worker: int) -> tuple[str, float]:
    """State and processor seconds of a process, all its threads together."""
    fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _held(name: str) -> int:
    """Bytes: `VmRSS` now, `VmHWM` at most, `VmSize` of address space."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(name + ":"))


def _work(function: Callable[[Any], Any], cases: list[Any], space: int, answers: int) -> None:
    limit = _held("VmSize") + space
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for case, memory in cases:
        with tempfile.TemporaryFile() as said:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            answer = _one(function, case, memory)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            said.seek(0)
            words = said.read(4096).decode(errors="replace")
        if words and answer["kind"] in GOOD:
            answer = {**answer, "kind": "stray", "said": words}
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _one(function: Callable[[Any], Any], case: Any, memory: int) -> dict[str, Any]:
    from legato.errors import LegatoError, LegatoWarning

    Path("/proc/self/clear_refs").write_text("5")  # the most that was held begins anew
    before, begun = _held("VmRSS"), time.process_time()
    kind, said, heard = "read", "", []

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, LegatoWarning):
            heard.append(str(message))
        else:
            sys.stderr.write(f"{category.__name__}: {message}\n")

    warnings.simplefilter("always")
    warnings.showwarning = show  # type: ignore[assignment]
    try:
        function(case)
    except LegatoError as refused:
        kind, said = "refused", str(refused)
    except MemoryError as problem:
        kind, said = "memory", f"MemoryError: {problem}"
    except BaseException:
        kind, said = "traceback", traceback.format_exc()
    peak = max(0, _held("VmHWM") - before)
    garbled = [line for line in [*heard, *([said] if kind == "refused" else [])] if not _line(line)]
    if garbled and kind in GOOD:
        kind, said = "garbled", repr(garbled[0])
    if peak > memory and kind in GOOD:
        kind, said = "memory", f"{peak / MIB:.0f} MiB, {memory / MIB:.0f} are allowed; {said}"
    return {"kind": kind, "said": said[-2000:], "peak": peak, "seconds": time.process_time() - begun}


def _line(said: str) -> bool:
    return bool(said) and len(said) <= LINE and said.isprintable()
