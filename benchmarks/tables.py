"""What reading a large table costs: a million rows of Parquet and of CSV, each in a new process.

python benchmarks/tables.py [--rows 1000000] [--observations 10] [--actions 3]

The tables hold observations, actions, a reward, an episode's number and a time, in float64 or float32. Seconds are of
the CPU, from the file to trajectories in memory; memory is the greatest resident size beyond that of the imported
library, beside the size of the trajectories' arrays.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

MEASURED = """
import re, time
from pathlib import Path
import pyarrow.parquet
from legato.data.tables import Columns, read

def resident():
    return int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024

columns = Columns(observations=('o*',), actions=('u*',), reward='r', episode='run', time='t')
memory, spent = resident(), time.process_time()
data, _ = read({path!r}, columns)
spent = time.process_time() - spent
arrays = sum(array.nbytes for array in (data.observations, data.actions, data.rewards)) / 2**20
print(spent, resident() - memory, arrays, len(data), data.steps)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--actions", type=int, default=3)
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), options.rows
    numbers = {f"o{i}": rng.normal(size=rows) for i in range(options.observations)}
    numbers |= {f"u{i}": rng.uniform(-1, 1, rows) for i in range(options.actions)} | {"r": rng.normal(size=rows)}
    marks = {"run": np.arange(rows) // 1000, "t": np.arange(rows) % 1000 * 0.1}
    print("| file | CPU s | memory, MB | arrays, MB | memory / arrays |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix in ((np.float64, "parquet"), (np.float32, "parquet"), (np.float64, "csv")):
            table = pyarrow.table({name: array.astype(kind) for name, array in numbers.items()} | marks)
            path = Path(folder) / f"{np.dtype(kind).name}.{suffix}"
            write = pyarrow.parquet.write_table if suffix == "parquet" else pyarrow.csv.write_csv
            write(table, path)
            code = MEASURED.format(path=str(path))
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            spent, memory, arrays, episodes, steps = map(float, done.stdout.split())
            assert (episodes, steps) == (-(-rows // 1000), rows)
            print(f"| {path.name} | {spent:.2f} | {memory:.0f} | {arrays:.0f} | {memory / arrays:.1f} |")


if __name__ == "__main__":
    main()
