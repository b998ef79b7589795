"""What a control loop pays before its first action: import, `legato.load`, the first decision, each in a new process.

python benchmarks/loading.py [--algorithms sac srl ...] [--preset cpu] [--length 8] [--rounds 5]

Pendulum's sizes, untrained policies. CPU seconds are the least of the rounds, as other programs only add to them, and
memory is the greatest resident size. The first row is `import jax` alone, in the same rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries
from legato.data.spec import Spec
from legato.training import policy_file
from legato.training.settings import preset

SPEC = Spec(3, (-2.0,), (2.0,))
FIRST = """
import legato
policy = legato.load({folder!r})
memory = policy.begin()
_, memory = policy.act(memory, [1.0, 0.0, 0.0], length={length})
"""
MEASURED = """
import pathlib, re, resource, time
used = resource.getrusage(resource.RUSAGE_SELF)
status = pathlib.Path('/proc/self/status')  # the other count begins with that of the process before
kilobytes = re.search('VmHWM:\\s*(\\d+)', status.read_text())[1] if status.exists() else used.ru_maxrss
print(used.ru_utime + used.ru_stime, int(kilobytes) / 1024)
"""
LATER = """
spent = []
for _ in range(400):
    before = time.perf_counter()
    _, memory = policy.act(memory, [1.0, 0.0, 0.0], length={length})
    spent.append(time.perf_counter() - before)
print(sorted(spent)[200] * 1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=entries(), default=[*entries()])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--length", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        codes = {"import jax": f"import jax\n{MEASURED}"}
        for name in options.algorithms:
            config, _ = preset(options.preset, name, "Pendulum-v1")
            policy = algorithm_module(name).new_policy(config, SPEC, jax.random.key(0))
            kept = Path(folder) / name
            policy_file.save(kept, policy, policy_file.Card(name, config, SPEC, {}))
            told = {"folder": str(kept), "length": options.length}
            codes[name] = FIRST.format(**told) + MEASURED + LATER.format(**told)
        found: dict[str, list[list[float]]] = {name: [] for name in codes}
        for _ in range(options.rounds):
            for name, code in codes.items():
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                found[name].append([float(word) for word in done.stdout.split()])
    alone = min(row[0] for row in found["import jax"])
    print("| | CPU s | of which beside `import jax` | MB | a later decision, us |")
    print("|---|---|---|---|---|")
    for name, rows in found.items():
        cpu, memory, *later = (min(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {cpu:.2f} | {cpu - alone:.2f} | {memory:.0f} | {f'{later[0]:.0f}' if later else ''} |")


if __name__ == "__main__":
    main()
