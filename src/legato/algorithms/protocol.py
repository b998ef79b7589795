"""What the functions of an algorithm's module are. `tests/conformance` holds every algorithm to it.

A module has plain functions over pytrees. A learner, a batch and a policy are whatever the algorithm makes of them; the
loops stack learners over seeds. Optional functions (`OPTIONAL`) are named by `Entry.offers`, each with the file of the
folder that has it.

Every algorithm
    init(config, spec, key[, statistics]) -> Learner            before the first update; pure
    update(config, learner, batch, key) -> (Learner, metrics)   one update of one seed; pure
    policy(config, learner) -> Policy                           the deployable part
    new_policy(config, spec, key) -> Policy                     `policy` of what `init` gives, without what only learns
    batches(config) -> ReplayBatchSpec | BatchSpec              what an update is given
    plan_length(config) -> int                                  primitive steps between decisions while training
    refresh_due(config, learner, last, now) -> bool             optional: is `refresh` to be called, after so many
                                                                steps and updates (`Counts`), when it was after `last`
                                                                (None: never)?
    refresh(config, learner, source, keys, show, last, now) -> (learner, source)
                                                                optional: work on the host between turns, for the
                                                                learners of all seeds, with the replay or the data;
                                                                `show(done, total, what)` may stop it, so that what it
                                                                was given must still be whole then
    finish(config, learner, source, keys, show) -> learner      optional: such work when the run ends, before its last
                                                                evaluation

that learns by acting
    check(config, spec, environment)                            optional: refuses or warns of what does not fit
    for_environment(config, spec, environment) -> config        optional: hyper-parameters, with what the environment
                                                                (an `EnvironmentConfig`) decides
    collect_interval(config) -> int | (low, high)               optional: primitive steps between decisions, collecting
    policy_interval(config) -> (low, high)                      optional: its policies say themselves when they decide
                                                                again (`Policy.interval`), within these bounds; so they
                                                                collect, are evaluated and played. A turn is `high`
                                                                primitive steps long, whatever they say
    explorer(config, learner, spec, step, random) -> Policy     optional: what collects after so many steps; `random`
                                                                until learning begins. By default a random action
                                                                that is held, then the policy

that learns from logs
    select_data(config, data, limit) -> Trajectories            the data as it is learnt from
    statistics(config, spec, data) -> statistics                what the policy keeps of the data, or instead
    prepare(config, spec, data, folder, fingerprint)            optional: statistics and the source of batches
    for_data(config, spec, data) -> config                      optional: hyper-parameters, with what the data decides

that fine-tunes the policies of another by acting
    check, phase, init, update, policy, deployed, explorer, targets, on_new_best, roll_back, longest_episode,
    reads_logs, initial_episodes, and a `replay` (`create`, `size`, `add`, `state`, `restore`): see
    `decision_s4.reweighted`
    continues(config) -> bool                                   optional: does the optimiser of pre-training go on?

What a trained policy offers to others
    compose(config, policy, options, parts)                     optional: (config, policy), played otherwise
    q_function(config, policy) -> QFunction                     optional: values of actions
    attention(config, policy) -> Attention                      optional: what predictions attend to
    trajectories(config, policy) -> TrajectorySampler           optional: a model of whole trajectories
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32

if TYPE_CHECKING:
    from legato.data.masking import Mask
    from legato.data.tokens import Discretiser
    from legato.data.trajectories import Trajectories
    from legato.models.q_functions import QFunction

OPTIONAL = frozenset(
    {"check", "collect_interval", "policy_interval", "explorer", "prepare", "for_data", "for_environment"}
    | {"refresh", "refresh_due", "finish", "continues", "compose", "q_function", "attention", "trajectories"}
)


POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Counts(NamedTuple):
    """How far a run is."""

    steps: int
    """primitive steps of each seed; of what learns from logs, updates"""
    updates: int
    end: int = 0
    """steps of the whole run, or updates"""


class Parts(NamedTuple):
    """What a trained policy may be composed with, to be played otherwise than it was trained."""

    learner: Callable[[], Any]
    """all that was learnt at the newest checkpoint of its run; raises `LegatoError` where there is none"""
    q_function: QFunction | None = None
    """of another policy"""


# --- attention ---


class Token(NamedTuple):
    """One place of a window."""

    kind: str
    """a letter: s, a, r, R (return-to-go), V (value), g (goal)"""
    number: int | None
    """which one of its kind in its step, from 1; None where there is only one"""
    step: int | None
    """from 0, the window's first; None for a goal's"""

    @property
    def name(self) -> str:
        """`s¹¹`, `r`."""
        return self.kind + ("" if self.number is None else str(self.number).translate(POWERS))


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """How much each prediction attends to each token of a window."""

    weights: Float[np.ndarray, "layers heads predictions tokens"]
    """rows sum to 1"""
    sees: Bool[np.ndarray, "predictions tokens"]
    """what may be attended to: no later token, and no value"""
    predicted: tuple[Token, ...]
    tokens: tuple[Token, ...]


class Attention(NamedTuple):
    """What a policy's network attends to."""

    reads: int
    """steps that the policy reads at a decision"""
    most: int
    """steps that its network was trained to read at once"""
    weights: Callable[[Trajectories, slice], AttentionWeights]
    """of one episode, its steps from and to"""


# --- models of trajectories ---


class TrajectorySampler(Protocol):
    """A model that continues trajectories by itself, actions included."""

    @property
    def window(self) -> int:
        """steps that it reads at most, the one being written included"""
        ...

    @property
    def observed(self) -> Discretiser:
        """the ranges and bins of observations"""
        ...

    def __call__(
        self,
        starts: Float32[np.ndarray, "starts obs"],
        samples: int,
        steps: int,
        *,
        context: int | None = None,
        seed: int = 0,
        mask: Mask | None = None,
        on_samples: Callable[[int], None] = lambda done: None,
    ) -> Float32[np.ndarray, "samples steps obs"]:
        """Observations after each start, NaN after an end; sample i begins at start i, round and round."""
        ...
