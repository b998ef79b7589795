"""What a run keeps of its evaluations: `evaluation.json`, one entry for each that was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from legato.errors import LegatoError
from legato.evaluation.fas import FASReference, reference
from legato.evaluation.sweep_figures import draw_all
from legato.evaluation.sweeps import Evaluation
from legato.training import files, policy_file
from legato.training.policy_file import Card
from legato.training.run import Run, Which, write_text


def read_entries(run: Run) -> dict[str, Any]:
    """All that is kept, by name (`last`, `best`, `last+beams=32`), as JSON has it; nothing where there is no file.

    Raises `LegatoError` for a file that holds no entries.
    """
    path = run.path / "evaluation.json"
    try:
        return files.read_object(path)
    except FileNotFoundError:
        return {}
    except files.Unfit as problem:
        raise LegatoError(f"'{path}' cannot be read ({problem}); move it away to evaluate anew") from problem


def parse_entry(run: Run, name: str, body: Any) -> Evaluation:
    """The evaluation in one entry. Raises `LegatoError` for what legato did not write."""
    found = Evaluation.from_json(body, f"'{name}' in '{run.path / 'evaluation.json'}'")
    if found.which != name:  # figures are named by it
        raise LegatoError(
            f"'{name}' in '{run.path / 'evaluation.json'}' calls itself '{found.which}'; move it away to evaluate anew"
        )
    return found


def keep(run: Run, result: Evaluation) -> None:
    """Write an evaluation and its figures into the run's folder.

    Raises `LegatoError` with the folder's name where it cannot be written to.
    """
    body = {**read_entries(run), result.which: result.to_json()}
    try:
        write_text(run.path / "evaluation.json", json.dumps(body, indent=1) + "\n")
        draw_all(result, run.path / "figures")
    except OSError as problem:
        raise LegatoError(f"what was measured is not kept in '{run.path}': {problem.strerror or problem}") from problem


def known_scale(run: Run, environment: str, which: str) -> FASReference | None:
    """The scale of an environment's returns: known, or as the user gave it when the run was evaluated there before.

    That of the same policies comes before that of others.
    """
    if (known := reference(environment)) is not None:
        return known
    kept = sorted(read_entries(run).items(), key=lambda entry: entry[0] != which)
    before = [parse_entry(run, name, body) for name, body in kept]
    return next((e.reference for e in before if e.environment == environment and e.reference is not None), None)


def is_current(run: Run, kept: Evaluation, which: Which) -> bool:
    """Are the policies still those that were measured? Without their files nothing else can be measured."""
    try:
        cards = [policy_file.read_card(run.policy_path(seed, which)) for seed in run.seeds]
    except LegatoError:
        return True
    return kept.steps is None or kept.steps == trained_steps(cards)


def trained_steps(cards: Sequence[Card]) -> tuple[int, ...] | None:
    """The steps of training behind each policy; None where one does not say."""
    steps = tuple(card.extra.get("step") for card in cards)
    return None if None in steps else steps  # type: ignore[return-value]


def with_kept_sweeps(run: Run, result: Evaluation) -> Evaluation:
    """The result with the sweeps over the clock that were kept of the very same policies in the same environment."""
    body = read_entries(run).get(result.which)
    if body is None or result.steps is None:
        return result
    kept = parse_entry(run, result.which, body)
    same = (kept.steps, kept.environment, kept.seeds) == (result.steps, result.environment, result.seeds)
    return replace(kept, prompts=result.prompts) if same else result
