"""What the predictions of a transformer attend to, in a window of logged experience.

A token is predicted at the token before it: the row of a prediction holds what that place attends to. The Trajectory
Transformer predicts every number of a step, the Decision Transformer each action.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from legato.algorithms import entries, entry
from legato.algorithms.protocol import Attention, AttentionWeights
from legato.data import formats, sets
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, escape_markup
from legato.loading import load
from legato.policy import Policy, guard_computation
from legato.training import logged_data
from legato.training.run import Run, Which
from legato.training.settings import OfflineSettings

SAME = "same"  # the very number that is predicted, at an earlier step
KINDS = {"s": "states", "a": "actions", "r": "rewards", "R": "returns", "V": "values", "g": "goal"}


@dataclass(frozen=True, eq=False)
class EpisodeAttention(AttentionWeights):
    """How much each prediction attends to each token of a window, and where that window is."""

    where: str
    """episode and step of the window's newest step, in words"""

    @property
    def steps(self) -> int:
        """In the window."""
        return 1 + max(token.step or 0 for token in self.tokens)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be attended to, as `shares` sorts it: the same number, states, actions, ..., goal."""
        seen, wanted = {t[:2] for t in self.tokens if t.kind != "V"}, {t[:2] for t in self.predicted}
        others = {token[0] for token in seen if wanted != {token}}
        return (SAME, *(name for kind, name in KINDS.items() if kind in others))

    @property
    def even(self) -> Float[np.ndarray, "1 1 predictions tokens"]:
        """The weights of a head that attends alike to all it sees: what shares are to be compared with."""
        return (self.sees / self.sees.sum(axis=-1, keepdims=True))[None, None]

    def shares(
        self, weights: Float[np.ndarray, "layers heads predictions tokens"], of: Collection[str] = tuple(KINDS)
    ) -> Float[np.ndarray, "layers heads distances kinds"]:
        """The newest step's predictions of these kinds, on average: shares of `weights` by distance and kind.

        Distances are steps back from the newest, and last the goal's. NaN where nothing of these kinds is predicted.
        """
        newest, kinds = self.steps - 1, self.kinds
        rows = [i for i, token in enumerate(self.predicted) if token.step == newest and token.kind in of]
        place = np.zeros((len(rows), len(self.tokens), self.steps + 1, len(kinds)))
        for row, i in enumerate(rows):
            for j, token in enumerate(self.tokens):
                back = self.steps if token.step is None else newest - token.step
                if token.kind != "V":
                    same = token[:2] == self.predicted[i][:2]
                    place[row, j, back, kinds.index(SAME if same else KINDS[token.kind])] = 1
        if not rows:
            return np.full((*weights.shape[:2], *place.shape[2:]), np.nan)
        return np.einsum("lhpt,ptdk->lhdk", weights[:, :, rows], place) / len(rows)


@guard_computation
def attention(
    run: Run | str | Path,
    figure: str | Path | None = None,
    *,
    dataset: str | Path | None = None,
    episode: int = 0,
    step: int | None = None,
    context: int | None = None,
    layers: Sequence[int] = (),
    heads: Sequence[int] = (),
    which: Which = "last",
    seed: int | None = None,
) -> EpisodeAttention:
    """What a transformer's predictions attend to in the steps of a logged episode that end with `step`.

    By default it is the first episode of the run's own dataset, up to its middle, as many steps as the policy reads.
    `figure` shows these `layers` and `heads`, numbered from 1, or all. Raises `LegatoError` for a run of anything else
    than a Trajectory, Decision or Online Decision Transformer, and for an episode, step, context, layer or head that
    there is not.
    """
    from legato.evaluation.figures import drawable, heat_maps

    run = run if isinstance(run, Run) else Run(run)
    settings = run.settings
    if "attention" not in entry(run.algorithm).offers:
        *names, last = (name for name, found in entries().items() if "attention" in found.offers)
        able = f"runs of {', '.join(names)} and {last} have"
        raise LegatoError(f"'{run.place}' is a run of {run.algorithm}, which has no attention: {able}")
    if figure is not None:
        drawable(figure)
    policy = load(run.path, seed, which).policy
    if isinstance(settings, OfflineSettings):
        source = settings.dataset if dataset is None else dataset
        data = logged_data.load_dataset(run) if dataset is None else logged_data.read(settings, str(dataset))
    elif dataset is not None:
        source, data = dataset, formats.load(dataset)
    else:
        raise LegatoError(f"'{run.place}' learnt by acting and names no logs: give `dataset`")
    found = attention_of(run.algorithm, run.config, policy, run.spec, data, episode, step, context)
    if figure is not None:
        title = f"{run.label} on {source}: attention"
        heat_maps.attention(found, figure, title=title, layers=layers, heads=heads)
    return found


def attention_of(
    algorithm: str,
    config: Any,
    policy: Policy[Any],
    spec: Spec,
    data: Trajectories,
    episode: int = 0,
    step: int | None = None,
    context: int | None = None,
) -> EpisodeAttention:
    """What the policy's network attends to in the `context` steps of an episode that end with `step`.

    By default these are as many steps as the policy reads, and end in the episode's middle. Where the episode begins
    later, there are fewer. A goal is the episode's last observation. `config` and `spec` are the policy's.

    Raises `LegatoError` for a policy without attention, data of other sizes, and what does not exist.
    """
    found = entry(algorithm)
    if "attention" not in found.offers:
        *names, last = (name for name, other in entries().items() if "attention" in other.offers)
        raise LegatoError(f"policies of {algorithm} have no attention: those of {', '.join(names)} and {last} have")
    here = (data.observations.shape[1], 1 if data.discrete else data.actions.shape[1], data.about.choices)
    if here != (spec.observation_size, spec.action_size, spec.choices):
        raise LegatoError(f"{data.about.name} has other observations or actions than this policy learnt from")
    if not 0 <= episode < len(data):
        raise LegatoError(f"{data.about.name} has episodes 0 to {len(data) - 1}; {episode} was given")
    length = int(data.lengths[episode])
    step = length // 2 if step is None else step
    if not 0 <= step < length:
        raise LegatoError(f"episode {episode} of {data.about.name} has steps 0 to {length - 1}; {step} was given")
    network: Attention = found.function("attention")(config, policy)
    context = network.reads if context is None else context
    if not 1 <= context <= network.most:
        raise LegatoError(f"this model reads 1 to {network.most} steps; a context of {context} was given")
    first = max(0, step + 1 - context)
    weights = network.weights(sets.select(data, [episode]), slice(first, step + 1))
    return EpisodeAttention(**vars(weights), where=f"episode {episode}, step {step}")


def table(found: EpisodeAttention) -> Any:
    """A rich table: one row per head, what the newest step's predictions attend to, in per cent."""
    from rich.table import Table

    kinds, goal = found.kinds, "goal" in found.kinds
    predicted = [kind for kind in "sa" if any(t.kind == kind for t in found.predicted)]
    result = Table(
        title=f"attention of the newest step's predictions, in % · {escape_markup(found.where)}",
        caption="same: on the predicted number itself, at earlier steps · s→a: of a state's prediction, on actions, "
        "and so on\nevenly: of a head that attends alike to all it sees",
        title_style="bold",
        caption_style="dim",
    )
    where = ["this step", "step before", "earlier", *(["goal"] if goal else []), SAME]
    names = [(of, kind) for of in predicted for kind in kinds if kind != "goal"]
    for name in ("layer", "head", *where, *(f"{of}→{kind if kind == SAME else kind[0]}" for of, kind in names)):
        result.add_column(name, justify="right")

    def rows(weights: np.ndarray) -> list[list[list[str]]]:
        """Cells [layers][heads]."""
        share = found.shares(weights)
        back = share.sum(axis=3)
        said = [back[..., 0], back[..., 1] if found.steps > 1 else 0 * back[..., 0], back[..., 2:-1].sum(axis=-1)]
        said += [back[..., -1]] if goal else []
        said.append(share[..., 0].sum(axis=-1))
        by_kind = {of: found.shares(weights, of).sum(axis=2) for of in predicted}
        said += [by_kind[of][..., kinds.index(kind)] for of, kind in names]
        numbers = np.stack(said, axis=-1)
        return [[["–" if np.isnan(x) else f"{100 * x:.0f}" for x in head] for head in layer] for layer in numbers]

    for layer, of_layer in enumerate(rows(found.weights), 1):
        for head, said in enumerate(of_layer, 1):
            result.add_row(str(layer), str(head), *said, end_section=head == len(of_layer))
    result.add_row("evenly", "", *rows(found.even)[0][0], style="dim")
    return result
