"""A command as a process: what signals do outside a training loop (one line or none, and the exit code that a shell
expects), and the precision.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A command that is told what to do instead of its own work; it imports nothing heavy.
PROGRAM = """
import atexit, os, signal, sys, time
import legato.cli

def wait():
    print("ready", flush=True)
    time.sleep(60)

def working(args):
    wait()

def importing(args):
    import slow

def closing(args):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    finally:
        wait()

def ending(args):
    atexit.register(wait)

def translating(args):
    try:
        wait()
    except KeyboardInterrupt:
        raise RuntimeError("a callback failed")

def collected(args):
    class Held:
        def __del__(self):
            wait()
    Held()
    time.sleep(60)

def torn(args):
    atexit.register(os.abort)  # as half-imported libraries do
    wait()

def ignoring(args):
    print("ready", flush=True)
    sys.stdin.readline()

def broken(args):
    sys.stdin.readline()  # until nobody reads any more
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(60)

def precise(args):
    import jax
    print(jax.config.jax_enable_x64)

{before}
legato.cli._dispatch = {doing}
legato.cli.main()
"""


def command(doing: str, folder: Path, before: str = "") -> subprocess.Popen[str]:
    (folder / "slow.py").write_text("import __main__\n__main__.wait()\n")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{doing}", doing).replace("{before}", before)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("doing", "sent"),
    [
        ("working", signal.SIGINT),
        ("working", signal.SIGTERM),
        ("working", signal.SIGHUP),
        ("importing", signal.SIGINT),
        ("importing", signal.SIGTERM),
        ("closing", signal.SIGINT),  # the second one: the first was heard
        ("ending", signal.SIGINT),
        ("ending", signal.SIGTERM),
        ("translating", signal.SIGINT),
        ("collected", signal.SIGINT),
        ("torn", signal.SIGINT),
    ],
)
def test_a_command_stops_with_one_line(doing: str, sent: signal.Signals, tmp_path: Path) -> None:
    process = command(doing, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (128 + sent, "stopped\n")


def test_what_is_ignored_at_first_stays_ignored(tmp_path: Path) -> None:
    """As of nohup."""
    process = command("ignoring", tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate("\n", timeout=50)
    assert (process.returncode, errors) == (0, "")


def test_nobody_needs_to_read_what_it_says(tmp_path: Path) -> None:
    process = command("broken", tmp_path)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(timeout=50) == 128 + signal.SIGHUP


def test_a_command_computes_in_single_precision_whatever_the_shell_says(tmp_path: Path) -> None:
    process = command("precise", tmp_path, "os.environ['JAX_ENABLE_X64'] = '1'")
    assert process.communicate() == ("False\n", "")


def test_no_file_takes_the_place_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    """Of a daemon that is started with none of the three."""
    code = "import sys; sys.argv = ['legato', 'list', 'presets']; from legato import cli; cli.main();"
    code += "file = open('number', 'w'); file.write(str(file.fileno()))"
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert int((tmp_path / "number").read_text()) > 2
