"""What the predictions of a transformer attend to, in a window of logged experience.

A token is predicted at the token before it: the row of a prediction holds what that place attends to. The Trajectory
Transformer predicts every number of a step, the Decision Transformer each action.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from legato.algorithms import decision_transformer as dt
from legato.algorithms import online_decision_transformer as odt
from legato.algorithms import trajectory_transformer as tt
from legato.algorithms.configs import TT
from legato.data import sets, windows
from legato.data import tokens as encoding
from legato.data import trajectories as logs
from legato.data.tokens import Layout
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, escape_markup
from legato.policy import Policy

SAME = "same"  # the very number that is predicted, at an earlier step
KINDS = {"s": "states", "a": "actions", "r": "rewards", "R": "returns", "V": "values", "g": "goal"}
POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Token(NamedTuple):
    """One place of a window."""

    kind: str
    """a letter of `KINDS`"""
    number: int | None
    """which one of its kind in its step, from 1; None where there is only one"""
    step: int | None
    """from 0, the window's first; None for a goal's"""

    @property
    def name(self) -> str:
        """`s¹¹`, `r`."""
        return self.kind + ("" if self.number is None else str(self.number).translate(POWERS))


@dataclass(frozen=True, eq=False)
class Attended:
    """How much each prediction attends to each token of a window; the rest is what they are."""

    weights: Float[np.ndarray, "layers heads predictions tokens"]
    """rows sum to 1"""
    sees: Bool[np.ndarray, "predictions tokens"]
    """what may be attended to: no later token, and no value"""
    predicted: tuple[Token, ...]
    tokens: tuple[Token, ...]
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


def attended(
    policy: Policy[Any],
    config: Any,
    data: Trajectories,
    episode: int = 0,
    step: int | None = None,
    context: int | None = None,
) -> Attended:
    """What the policy's network attends to in the `context` steps of an episode that end with `step`.

    By default these are as many steps as the policy reads, and end in the episode's middle. Where the episode begins
    later, there are fewer. A goal is the episode's last observation. `config` is that of the policy's algorithm.

    Raises `LegatoError` for a policy without attention, data of other sizes, and what does not exist.
    """
    if isinstance(policy, odt.Stochastic):
        policy = policy.reader
    if not isinstance(policy, tt.Planning | dt.Reencoding | dt.Caching):
        raise LegatoError("only policies of tt, dt and odt attend to anything")
    facts = policy.facts if isinstance(policy, tt.Planning) else policy.acting.facts
    here = (data.observations.shape[1], 1 if data.discrete else data.actions.shape[1], data.about.choices)
    if here != (facts.spec.observation_size, facts.spec.action_size, facts.spec.choices):
        raise LegatoError(f"{data.about.name} has other observations or actions than this policy learnt from")
    if not 0 <= episode < len(data):
        raise LegatoError(f"{data.about.name} has episodes 0 to {len(data) - 1}; {episode} was given")
    length = int(data.lengths[episode])
    step = length // 2 if step is None else step
    if not 0 <= step < length:
        raise LegatoError(f"episode {episode} of {data.about.name} has steps 0 to {length - 1}; {step} was given")
    reads, most = _reads(policy)
    context = reads if context is None else context
    if not 1 <= context <= most:
        raise LegatoError(f"this model reads 1 to {most} steps; a context of {context} was given")
    first = max(0, step + 1 - context)
    where = f"episode {episode}, step {step}"
    one = sets.select(data, [episode])
    if isinstance(policy, tt.Planning):
        return _of_trajectories(policy, config, one, slice(first, step + 1), where)
    return _of_decisions(policy, one, slice(first, step + 1), where)


def _reads(policy: tt.Planning | dt.Reencoding | dt.Caching) -> tuple[int, int]:
    """Steps that a policy reads at a decision, and those that its network was trained to read at once."""
    if isinstance(policy, tt.Planning):
        return policy.context, policy.network.window
    if isinstance(policy, dt.Reencoding):
        return policy.context, policy.context
    band = policy.acting.network.trunk.band
    assert band is not None  # of what has a cache
    return band // 3, 2 * band // 3


def _of_trajectories(policy: tt.Planning, config: TT, episode: Trajectories, at: slice, where: str) -> Attended:
    network, discretiser = policy.network, policy.facts.discretiser
    layout, steps = network.layout, at.stop - at.start
    rows = encoding.table(episode, layout, config.gamma, config.penalty)[at]
    read = encoding.encode(discretiser, rows).astype(np.int32).reshape(1, -1)[:, :-1]  # the last leads to nothing here
    tokens, goals = _places(layout, steps), None
    if network.goal is not None:
        end = episode.observations[-1:] if episode.ends is None else episode.ends
        goals = encoding.encode(discretiser.columns(slice(0, layout.observations)), end).astype(np.int32)
    front = () if goals is None else tuple(Token("g", i + 1, None) for i in range(layout.observations))
    weights = np.asarray(_trajectory_weights(network, jnp.asarray(read), None if goals is None else jnp.asarray(goals)))
    keys, queries = (*front, *tokens[:-1]), np.arange(len(front), len(front) + read.shape[1])
    sees = (np.arange(len(keys)) <= queries[:, None]) & np.array([token.kind != "V" for token in keys])
    return Attended(weights[0, :, :, len(front) :], sees, tokens[1:], keys, where)


_trajectory_weights = eqx.filter_jit(lambda network, tokens, goals: network.attention(tokens, goals))


def _places(layout: Layout, steps: int) -> tuple[Token, ...]:
    """The tokens of so many steps."""
    one = [("s", i + 1) for i in range(layout.observations)] + [("a", i + 1) for i in range(layout.actions)]
    one += [("r", None)] * layout.rewards + [("V", None)] * layout.values
    return tuple(Token(kind, number, step) for step in range(steps) for kind, number in one)


def _of_decisions(policy: dt.Reencoding | dt.Caching, episode: Trajectories, at: slice, where: str) -> Attended:
    acting, steps = policy.acting, at.stop - at.start
    if acting.delayed:
        episode = logs.delayed(episode)
    if acting.network.returns:
        logs.rewards(episode)
    window = windows.window(windows.episodes(episode, acting.gamma), jnp.asarray(at.start), steps)
    weights = np.asarray(_decision_weights(acting.network, acting.facts, window))
    tokens = tuple(Token(kind, None, step) for step in range(steps) for kind in "Rsa")[:-1]  # nobody sees the last
    back = np.arange(1, 3 * steps, 3)[:, None] - np.arange(len(tokens))
    sees = (back >= 0) & (back < (acting.network.trunk.band or 3 * steps))
    predicted = tuple(Token("a", None, step) for step in range(steps))
    return Attended(weights[:, :, 1::3, :-1], sees, predicted, tokens, where)


@eqx.filter_jit
def _decision_weights(network: dt.Network, facts: Any, window: windows.Window) -> Any:
    given = facts.ask(window.returns_to_go), facts.normaliser(window.observations), facts.unit(window.actions)
    return network.attention(*given, window.timesteps, window.mask)


def table(found: Attended) -> Any:
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
