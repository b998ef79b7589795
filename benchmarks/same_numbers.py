"""Do two checkouts of this repository train to the same numbers, bit for bit?

python benchmarks/same_numbers.py BEFORE [AFTER] [--cases sac bc ...] [--keep FOLDER]

BEFORE and AFTER are folders of checkouts (`git worktree add ../before COMMIT`); AFTER is by default this one. Every
case is a small run of two seeds, killed by SIGKILL after its first checkpoint and resumed:

after     the run of AFTER, killed and resumed there, against that of BEFORE
resumed   a run that BEFORE began and was killed in, resumed by AFTER, against that of BEFORE

What is compared is `metrics.csv` and the arrays of every saved policy, whatever their names. `--keep` names a folder
that keeps the runs, from which those of BEFORE are taken the next time.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

# Ends a command right after its first checkpoint is on disk.
KILLED = """
import os, signal
from legato.training.checkpoint import Checkpoints
save = Checkpoints.save
def once(self, step, tree):
    save(self, step, tree)
    self.wait()
    os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save = once
"""
COMMAND = "from legato.cli import main; main()"

TIMES = "--steps 900 --start-steps 150 --eval-every 300 --log-every 150 --checkpoint-every 400 --eval-episodes 2"
ACT = f"--env Pendulum-v1 --seeds 2 --hidden 16 --batch-size 16 {TIMES}"
LEARN = "--seeds 2 --updates 400 --eval-every 200 --log-every 100 --checkpoint-every 150 --eval-episodes 2"
MODEL = "--members 2 --elites 1 --model-hidden 8 --rollouts 32 --fit-epoch 10 --fit-most 40"
LOGS = f"--dataset {{logs}} --env Pendulum-v1 {LEARN}"
CHOICES = f"--dataset {{choices}} --env CartPole-v1 {LEARN}"
TUNE = "--env Pendulum-v1 --seeds 2 --steps 1400 --eval-every 400 --log-every 200 --checkpoint-every 700"
TUNE += " --eval-episodes 2 --hidden 8 --layers 1 --batch-size 8"

# The command of each case without --out. `{name}` is the run of another case, which comes before.
CASES = {
    "sac": f"train sac {ACT}",
    "sac-3": f"train sac {ACT} --action-repeat 3 --updates decision --environments 2",
    "sac-paper": f"train sac {ACT} --preset paper",
    "td3": f"train td3 {ACT}",
    "temporl": f"train temporl {ACT} --max-skip 4",
    "temporl-choices": f"train temporl {ACT.replace('Pendulum', 'CartPole')} --max-skip 4 --environments 2",
    "srl": f"train srl {ACT} --horizon 4 --model-hidden 16 16",
    "srl-paper": f"train srl {ACT} --preset paper --horizon 3 --model-hidden 16 16 --actor-every 2",
    "srl-latent": f"train srl {ACT} --horizon 3 --model-hidden 16 16 --latent 4 --critic time_aware",
    "srl-n": f"train srl {ACT} --horizon 3 --model-hidden 16 16 --n-step 3 --teaching through_time --cell rnn",
    "mbpo": f"train mbpo {ACT} {MODEL} --first-fit 150 --refit-every 200 --rollout-length 1 3 --rollout-growth 150 600",
    "mbpo-paper": f"train mbpo {ACT} {MODEL} --preset paper --first-fit 150 --refit-every 300 --termination learned",
    "cmlo": f"train cmlo {ACT} {MODEL} --first-fit 150 --shortest 100 --longest 300",
    "mopo": f"train mopo {LOGS} {MODEL} --hidden 8 --batch-size 8 --imagine-every 100 --rollout-length 1 3"
    " --termination never",
    "bc": f"train bc {LOGS} --hidden 8 --batch-size 8",
    "bc-best": f"train bc {LOGS} --hidden 8 --batch-size 8 --fraction 0.5 --dropout 0.1 --holdout 0.2",
    "bc-choices": f"train bc {CHOICES} --hidden 8 --batch-size 8",
    "dt": f"train dt {LOGS} --size 8 --layers 1 --context 3 --batch-size 8 --dropout 0.1 --targets -200 -400",
    "dt-cache": f"train dt {LOGS} --size 8 --layers 1 --context 3 --batch-size 8 --decoding cache --gamma 0.9",
    "dt-choices": f"train dt {CHOICES} --size 8 --layers 1 --context 3 --batch-size 8 --positions timestep",
    "odt": f"train odt {LOGS} --size 8 --layers 1 --context 3 --eval-context 2 --batch-size 8",
    "ds4": f"train ds4 {LOGS} --channels 4 --layers 1 --order 4 --embedding 4 --batch-size 4",
    "ds4-s5": f"train ds4 {LOGS} --channels 4 --layers 1 --order 4 --embedding 4 --batch-size 4"
    " --core s5 --dropout 0.1",
    "tt": f"train tt {LOGS} --bins 6 --window 3 --layers 1 --heads 2 --size 16 --context 3 --batch-size 8 --beams 8",
    "tt-choices": f"train tt {CHOICES} --bins 6 --window 3 --layers 1 --heads 2 --size 16 --context 3 --batch-size 8"
    " --beams 8 --dropout 0.1 --optimiser adamw",
    "iql": f"train iql {LOGS} --hidden 8 --batch-size 8",
    "iql-choices": f"train iql {CHOICES} --hidden 8 --batch-size 8 --dropout 0.1 --initialisation orthogonal",
    "ds4-ac": f"finetune {{ds4}} {TUNE} --start-steps 200 --critic-steps 800 --offline-steps 400 --rollback",
    "ds4-ac-paper": f"finetune {{ds4}} {TUNE} --preset paper --start-steps 200 --critic-steps 800 --n-step 3",
    "ds4-rw": "finetune {ds4} --method ds4-rw --env Pendulum-v1 --seeds 2 --steps 1400 --eval-every 400 --log-every 200"
    " --checkpoint-every 700 --eval-episodes 2 --every 200 --updates 5 --episodes 20 --batch-size 4",
    "odt-online": f"finetune {{odt}} {TUNE} --every 200 --updates 5 --episodes 20 --td3 0.1 --critic-steps 400"
    " --critic-updates 20",
    "odt-online-paper": f"finetune {{odt}} {TUNE} --preset paper --every 200 --updates 5 --episodes 20",
    "ds4-scratch": f"finetune ds4 {TUNE} --target -200 --start-steps 200 --critic-steps 400"
    " --base channels=4 layers=1 order=4 embedding=4",
}

# Options and values of these commands that older checkouts know by another name.
OLDER = {"--decoding": "--memory", "--eval-context": "--reads", "--offline-steps": "--logged"}


def write_logs(folder: Path) -> dict[str, str]:
    """Random episodes in the shapes of Pendulum-v1, and of CartPole-v1 with its two choices."""
    rng, lengths = np.random.default_rng(0), np.arange(30, 54)
    steps, last = int(lengths.sum()), np.cumsum(lengths) - 1
    common = {
        "rewards": rng.normal(-1, 1, steps),
        "terminations": np.isin(np.arange(steps), last[::2]),
        "truncations": np.isin(np.arange(steps), last[1::2]),
    }
    files = {"logs": str(folder / "logs.npz"), "choices": str(folder / "choices.npz")}
    swings = rng.normal(size=(steps, 3)), rng.uniform(-2, 2, (steps, 1))
    np.savez(files["logs"], observations=swings[0], actions=swings[1], low=[-2.0], high=[2.0], **common)
    poles = rng.normal(size=(steps, 4)), rng.integers(0, 2, steps)
    np.savez(files["choices"], observations=poles[0], actions=poles[1], choices=2, **common)
    return files


def run(checkout: Path, words: list[str], cwd: Path, *, killed: bool = False) -> None:
    """A command of a checkout, whose process is killed after the first checkpoint where that is asked for."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "JAX_PLATFORMS": "cpu"}
    code = KILLED + COMMAND if killed else COMMAND
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode != (-9 if killed else 0):
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


def train(begins: Path, resumes: Path, words: list[str], out: Path) -> Path:
    """A run that one checkout begins, until it is killed, and another (or the same) ends."""
    if not (out / "done").exists():
        shutil.rmtree(out, ignore_errors=True)
        cwd = out.parents[1]  # which has no folder that is called like an algorithm
        run(begins, [*words, "--out", str(out), "--quiet"], cwd, killed=True)
        run(resumes, [words[0], "--resume", str(out), "--quiet"], cwd)
        (out / "done").touch()
    return out


def difference(one: Path, other: Path) -> str:
    """Where two runs differ; empty where they do not."""
    rows = [list(csv.reader((path / "metrics.csv").open())) for path in (one, other)]
    if rows[0][1:] != rows[1][1:]:
        at = next((i for i, (a, b) in enumerate(zip(*rows, strict=False)) if i and a != b), "the last")
        return f"metrics.csv, row {at}"
    saved = [sorted(path.relative_to(run) for path in run.rglob("weights.safetensors")) for run in (one, other)]
    if saved[0] != saved[1] or not saved[0]:
        return f"policies: {len(saved[0])} and {len(saved[1])}"
    for path in saved[0]:
        if arrays(one / path) != arrays(other / path):
            return str(path.parent)
    return ""


def arrays(path: Path) -> Counter[Any]:
    """The arrays of a policy by shape, type and content."""
    return Counter(
        (array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).hexdigest())
        for array in load_file(path).values()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    before, after = options.before.resolve(), options.after.resolve()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="legato-same-")).resolve()
    same = before == after
    for name in ("before", "after", "resumed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        if name != "before":
            shutil.rmtree(folder / name)
            (folder / name).mkdir()
    files = write_logs(folder)
    wrong = 0
    print("| case | after | resumed | s |\n|---|---|---|---|")
    for case in options.cases:
        begun = time.monotonic()

        def words(runs: str, old: bool, case: str = case) -> list[str]:
            found = CASES[case].format(**files, **{name: folder / runs / name for name in CASES if name != case})
            return [OLDER.get(word, word) if old else word for word in found.split()]

        needed = [name for name in CASES if f"{{{name}}}" in CASES[case]]
        for other in needed:
            train(before, before, words("before", True, other), folder / "before" / other)
        reference = train(before, before, words("before", True), folder / "before" / case)
        told = []
        if not same:
            # What is fine-tuned is a run of BEFORE in both cases.
            made = train(after, after, words("before", False), folder / "after" / case)
            told.append(difference(reference, made) or "equal")
            made = train(before, after, words("before", True), folder / "resumed" / case)
            told.append(difference(reference, made) or "equal")
        wrong += sum(text != "equal" for text in told)
        print(f"| {case} | {' | '.join(told)} | {time.monotonic() - begun:.0f} |", flush=True)
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    if wrong:
        sys.exit(f"{wrong} differ")


if __name__ == "__main__":
    main()
