"""MBPO, CMLO and MOPO: hyper-parameters, presets and entries.

Sources: [MBPO] Janner et al., arXiv 1906.08253, and its code; [CMLO] Ji et al., arXiv 2210.08349, and its code; [MOPO]
Yu et al., arXiv 2005.13239, and its code; [Kit] OfflineRL-Kit's MOPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import (
    Annealing,
    AtLeast,
    Count,
    Finite,
    Interval,
    NonNegative,
    Positive,
    PositiveShare,
    Rate,
    Share,
    Size,
    Whole,
    types,
    validate,
)
from legato.planning.options import Shooting

FIELD_MODELS = ("circulant", "convlstm")
"""of a periodic field, which predict no rewards"""


@dataclass(frozen=True)
class ModelBased:
    """What MBPO, CMLO and MOPO have in common: an ensemble, what is imagined in it, and SAC."""

    # --- the model ---
    model: Literal["mlp", "circulant", "convlstm"] = "mlp"
    """networks of the model: perceptrons [MBPO]; or, for plants that have a `grid_forcing`, convolutions of a periodic
    field, or a convolutional LSTM of it (Werner & Peitz, arXiv 2302.07160), which remembers the steps before"""
    reward: Literal["learned", "known"] = "learned"
    """the model predicts rewards too [MBPO], or they are computed, where an environment has a `known_reward`"""
    termination: Literal["auto", "rule", "learned", "never"] = "auto"
    """when imagined episodes end: by the environment's rule [MBPO], by a classifier that learns it, or never; auto: by
    the rule where it is known, otherwise learnt"""
    members: Annotated[int, AtLeast(1, most=100)] = 7
    """networks of the ensemble [MBPO]"""
    elites: Size = 5
    """of them that imagine: those that predict held-out rows best [MBPO]"""
    model_hidden: Annotated[tuple[int, ...], AtLeast(1, most=10**6)] = (200, 200, 200, 200)
    """widths of their hidden layers [MBPO]"""
    model_channels: Annotated[tuple[int, ...], AtLeast(1, most=1_000)] = (16, 16)
    """of `model=circulant`: channels of its hidden layers"""
    model_norm: bool = False
    """of `model=convlstm`: layers are normalised over the grid, as published, which hides how large a field is"""
    model_batch_size: Size = 256
    """rows per update of each [MBPO]; with `model=convlstm` sequences of 20 steps"""
    model_learning_rate: Rate = 1e-3
    """Adam step size of each [MBPO]"""
    model_weight_decay: NonNegative = 5e-5
    """[MBPO: 2.5e-5 in the first layer to 1e-4 in the last]"""
    variance_power: Share = 0.0
    """with 0 the loss is the likelihood [MBPO], in which numbers that are predicted exactly outweigh the others; with 1
    all count alike for the mean (Seitzer et al., arXiv 2203.09168, beta)"""
    held_out: Annotated[float, Interval("(0, 0.5]")] = 0.2
    """share of the rows by which fitting is stopped and elites are chosen [MBPO]"""
    held_out_most: Count = 5_000
    """rows held out at most [MBPO]"""
    patience: Count = 5
    """measurements on held-out rows without improvement after which fitting stops [MBPO]"""
    fit_epoch: Whole = 0
    """updates between two such measurements; 0: as many as go through the rows once [MBPO]"""
    fit_most: Count = 10_000
    """updates after which a fit stops in any case"""
    shuffle_actions: bool = False
    """a negative control: the model learns from actions that were taken elsewhere"""

    # --- what is imagined ---
    rollouts: Size = 100_000
    """states from which the model is unrolled each time [MBPO]"""
    rollout_length: Annotated[tuple[int, int], AtLeast(1, most=1_000)] = (1, 1)
    """steps of each, at first and in the end [MBPO]"""
    rollout_growth: Annotated[tuple[int, int], AtLeast(0)] = (20_000, 150_000)
    """steps of the run between which they grow [MBPO]"""
    recent_starts: Whole = 0
    """newest steps of the replay in which roll-outs start; 0: in all [MBPO]"""
    retain: Count = 1
    """times that the model is unrolled of which the steps are kept [MBPO]"""
    real_share: Share = 0.05
    """of every minibatch, rounded down [MBPO]; 1: nothing is imagined"""

    # --- SAC ---
    units: Literal["data", "environment"] = "data"
    """in which units actor and critics count: observations in deviations from the mean and rewards in deviations of
    the newest `unit_steps` of the data, or the environment's [MBPO]. Actions are always in units of their bounds"""
    unit_steps: Count = 1_000
    """newest steps by which these are measured"""
    hidden: Size = 256
    """width of the two hidden layers of actor and critics [MBPO]"""
    batch_size: Size = 256
    """transitions per update [MBPO]"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor, critics and temperature [MBPO]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [MBPO], -1: the run"""
    gamma: Share = 0.99
    """discount per primitive step [MBPO]"""
    tau: PositiveShare = 0.005
    """Polyak rate of the target critics, every update [MBPO]"""
    target_entropy: Annotated[float | None, Finite()] = None
    """entropy that is asked for, in nats per action; by default minus the size of an action [MBPO: by task]"""
    known_from: str = ""
    """the environment whose known reward and rule are used, with its options, as JSON; a run writes it"""

    def __post_init__(self) -> None:
        validate(self)
        if self.elites > self.members:
            raise LegatoError(f"elites must be at most members, {self.members}; {self.elites} was given")
        if len(self.rollout_length) != 2 or len(self.rollout_growth) != 2:
            raise LegatoError("rollout_length and rollout_growth are two numbers each: at first and in the end")
        if self.rollout_growth[0] > self.rollout_growth[1]:
            raise LegatoError(f"rollout_growth must not end before it begins; {self.rollout_growth} was given")


@dataclass(frozen=True)
class MBPO(ModelBased):
    """Model-based policy optimisation: SAC, mostly on short roll-outs of an ensemble that is refitted by the clock."""

    update: Literal["clock", "event"] = "clock"
    """when the model is refitted: every `refit_every` steps [MBPO], or where it is due [CMLO]"""
    first_fit: Count = 5_000
    """steps after which the model is fitted for the first time, and learning begins [MBPO]"""
    refit_every: Whole = 250
    """steps between two fits [MBPO]; 0: it is fitted once. With `update=event` not read"""
    imagine_every: Whole = 0
    """steps between two times that the model is unrolled; 0: whenever it was fitted [MBPO]. With `update=event` it is
    at every check"""
    trigger: Literal["paper", "release", "error", "cusum", "fixed"] = "paper"
    """of `update=event`: how the shift is estimated, from the growth of the observations' hull and the error [CMLO],
    from random subsets as in the authors' code, from the error alone, from how much it has risen since the last fit
    (Page's cumulative sum), or not at all"""
    trigger_scale: Literal["unit-free", "raw"] = "unit-free"
    """in which units errors count for it: how much observations usually change, or their own [CMLO]"""
    check_every: Count = 20
    """steps between two looks at it, F [CMLO: 20 or 50]"""
    threshold: Rate = 1.2
    """of the shift, alpha [CMLO: 1.2 to 3, of raw errors]"""
    shortest: Count = 150
    """steps between two fits at least [CMLO]"""
    longest: Count = 500
    """steps between two fits at most [CMLO]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortest > self.longest:
            raise LegatoError(f"shortest must be at most longest, {self.longest}; {self.shortest} was given")
        if self.trigger == "cusum" and self.trigger_scale == "raw":
            raise LegatoError("trigger=cusum counts unit-free errors: leave out trigger_scale=raw")


@dataclass(frozen=True)
class CMLO(MBPO):
    """MBPO whose model is refitted where it is due: where what it sees has grown and what it predicts is wrong."""

    update: Literal["clock", "event"] = "event"
    """when the model is refitted: where it is due [CMLO], or every `refit_every` steps [MBPO]"""


@dataclass(frozen=True)
class MOPO(ModelBased):
    """Offline model-based policy optimisation: SAC on roll-outs of a model that pay less where the model is unsure."""

    model: Literal["mlp", "circulant"] = "mlp"
    """networks of the model: perceptrons [MOPO]; or convolutions of a periodic field, for plants that have a
    `grid_forcing`"""
    held_out_most: Count = 1_000
    """rows held out at most [MOPO]"""
    rollouts: Size = 50_000
    """states from which the model is unrolled each time [MOPO]"""
    rollout_length: Annotated[tuple[int, int], AtLeast(1, most=1_000)] = (5, 5)
    """steps of each, at first and in the end [MOPO: 1 or 5]"""
    imagine_every: Count = 1_000
    """updates between two times that the model is unrolled [MOPO]"""
    retain: Count = 5
    """times that the model is unrolled of which the steps are kept [MOPO]"""
    penalty: NonNegative = 1.0
    """how much uncertainty costs, lambda [MOPO: 0.5 to 5, of raw units]"""
    penalty_kind: Literal["ensemble_std", "max_pairwise", "max_aleatoric", "none"] = "ensemble_std"
    """what uncertainty is: the deviation of the members' means, the largest distance of two, or the largest spread that
    a member predicts [MOPO]"""
    penalty_units: Literal["data", "raw"] = "data"
    """what a penalty of 1 takes at a step as uncertain as only 5 % of the data's are: a deviation of the data's
    rewards; or lambda times an uncertainty in raw units, whatever these are [MOPO]"""
    penalty_most: Annotated[float, Positive()] = 5.0
    """uncertainty that counts at most, where 1 is that of the 5 %; not read with `penalty_units=raw`"""
    clip_targets: bool = True
    """keep critics' targets between the least and the largest discounted return that the data's rewards allow [MOPO:
    off]"""


# Of the code of [MBPO], by environment without version: (updates per step, roll-out lengths, growth in thousands of
# steps, target entropy).
PAPER: dict[str, tuple[int, tuple[int, int], tuple[int, int], float]] = {
    "HalfCheetah": (40, (1, 1), (20, 150), -3.0),
    "Hopper": (20, (1, 15), (20, 150), -1.0),
    "Walker2d": (20, (1, 1), (20, 150), -3.0),
    "Ant": (20, (1, 25), (20, 100), -4.0),
    "Humanoid": (20, (1, 25), (20, 300), -2.0),
    "InvertedPendulum": (10, (1, 1), (1, 15), -0.05),
    "InvertedDoublePendulum": (20, (1, 1), (1, 15), -0.5),
}
PAPER_STEPS = {"HalfCheetah": 400_000, "Hopper": 125_000}
QUICK = ("InvertedPendulum", "InvertedDoublePendulum")
"""their epochs are of 250 steps"""


def paper(task: Task) -> Preset:
    """As published for MBPO."""
    family = task.family
    updates, length, growth, entropy = PAPER.get(family, (20, (1, 1), (20, 150), None))
    start, epoch = (500, 250) if family in QUICK else (5_000, 1_000)
    options: dict[str, Any] = {"rollout_length": length, "units": "environment", "target_entropy": entropy}
    options |= {"rollout_growth": (growth[0] * epoch, growth[1] * epoch), "first_fit": start}
    if family == "Humanoid":
        options |= {"refit_every": 1_000, "retain": 5, "model_hidden": (400, 400, 400, 400)}
    steps = 15 * epoch if family in QUICK else PAPER_STEPS.get(family, 300_000)
    settings = {"steps": steps, "start_steps": start, "updates_per_step": float(updates), "eval_every": epoch}
    return Preset(options, {**settings, "checkpoint_every": epoch})


# What differs for two cores: a smaller discount where little depends on what comes later, wider networks where control
# is to be exact, more random steps and updates where a swing or a balance is to be found.
CPU: dict[str, dict[str, Any]] = {
    "LQR": {
        **{"gamma": 0.95, "hidden": 128, "batch_size": 256, "target_entropy": -0.5, "reward": "known"},
        **{"unit_steps": 100_000},
    },
    "Pendulum": {"first_fit": 500, "target_entropy": -0.5},
    "InvertedPendulum": {"first_fit": 500, "target_entropy": -0.5, "gamma": 0.97},
    "Hopper": {
        **{"first_fit": 1_000, "target_entropy": -1.0, "rollout_length": (1, 5), "rollout_growth": (2_000, 10_000)},
        **{"refit_every": 1_000, "imagine_every": 250, "rollouts": 10_000, "model_hidden": (128, 128)},
    },
}
CPU_UPDATES = {"LQR": 20.0, "Pendulum": 20.0, "InvertedPendulum": 20.0, "Hopper": 20.0}
"""per step, where they are not ten"""


FIELDS = ("KuramotoSivashinsky", "KuramotoSivashinsky-8jets")


def cpu(task: Task) -> Preset:
    """For two cores."""
    if task.family in FIELDS:
        return _field()
    options: dict[str, Any] = {"first_fit": 250, "members": 5, "elites": 3, "model_hidden": (64, 64)}
    options |= {"fit_epoch": 100, "fit_most": 2_000, "rollouts": 2_000}
    options |= {"hidden": 64, "batch_size": 128, "learning_rate": 1e-3, "anneal_over": -1} | CPU.get(task.family, {})
    updates = CPU_UPDATES.get(task.family, 10.0)
    steps, every = (30_000, 1_000) if task.family == "Hopper" else (3_000, 250)
    settings: dict[str, Any] = {"steps": steps, "start_steps": options["first_fit"], "updates_per_step": updates}
    return Preset(options, {**settings, "eval_every": every, "log_every": every, "checkpoint_every": 2 * every})


# Roll-out length and lambda, by words of the dataset's name, the most particular first: of [Kit] for D4RL's v2 sets,
# and of [MOPO] for its random ones (v0), which [Kit] leaves out.
PAPER_OFFLINE: dict[str, tuple[int, float]] = {
    "halfcheetah medium replay": (5, 0.5),
    "halfcheetah medium expert": (5, 2.5),
    "halfcheetah medium": (5, 0.5),
    "halfcheetah random": (5, 0.5),
    "hopper medium replay": (5, 2.5),
    "hopper medium expert": (5, 5.0),
    "hopper medium": (5, 5.0),
    "hopper random": (5, 1.0),
    "walker2d medium replay": (1, 2.5),
    "walker2d medium expert": (1, 2.5),
    "walker2d medium": (5, 0.5),
    "walker2d random": (1, 1.0),
}


def paper_offline(task: Task) -> Preset:
    """As published for MOPO: its penalty in its units, its target entropy."""
    length, penalty = next((found for words, found in PAPER_OFFLINE.items() if task.has(words)), (5, 1.0))
    options: dict[str, Any] = {"rollout_length": (length, length), "penalty": penalty, "units": "environment"}
    options |= {"penalty_kind": "max_aleatoric", "penalty_units": "raw", "clip_targets": False}
    options |= {"target_entropy": -3.0, "fit_most": 1_000_000}
    return Preset(options, {"updates": 1_000_000, "eval_every": 10_000, "checkpoint_every": 50_000})


def cpu_offline(task: Task) -> Preset:
    """For two cores: a smaller model whose every output counts alike, half of the rows real, fewer updates with longer
    steps."""
    options: dict[str, Any] = {"members": 5, "elites": 3, "model_hidden": (64, 64), "model_learning_rate": 3e-3}
    options |= {"variance_power": 1.0, "fit_epoch": 250, "fit_most": 4_000, "rollouts": 2_000, "imagine_every": 500}
    options |= {"hidden": 64, "batch_size": 128, "learning_rate": 1e-3, "anneal_over": -1, "tau": 0.02}
    options |= {"real_share": 0.5}
    return Preset(options, {"updates": 10_000, "eval_every": 2_500, "checkpoint_every": 2_500})


def _field() -> Preset:
    """Of a periodic field that is seen whole."""
    start = 500
    options: dict[str, Any] = {
        "model": "circulant",
        "reward": "known",
        "members": 3,
        "elites": 3,
        "units": "environment",
    }
    options |= {
        "model_learning_rate": 3e-3,
        "model_batch_size": 128,
        "fit_epoch": 100,
        "fit_most": 1_000,
        "patience": 3,
    }
    options |= {"first_fit": start, "refit_every": 500, "rollouts": 4_000, "rollout_length": (3, 3)}
    options |= {"hidden": 128, "gamma": 0.97, "learning_rate": 1e-3, "tau": 0.01, "anneal_over": -1}
    settings: dict[str, Any] = {"steps": 5_000, "start_steps": start, "updates_per_step": 10.0}
    return Preset(options, {**settings, "eval_every": 500, "log_every": 500, "checkpoint_every": 1_000})


PLANNERS = ("unrolled", "mppi", "cem")

_PLAY = {"planner": str, **types(Shooting)}


def _online(name: str, config: type[MBPO]) -> Entry:
    """The entry of what learns by acting; all of it is one module."""
    return Entry(
        name=name,
        config=config,
        learns="online",
        module="legato.algorithms.mbpo.mbpo",
        presets={"paper": paper, "cpu": cpu},
        play=_PLAY,
        offers={
            **{word: "mbpo" for word in ("check", "for_environment", "refresh", "refresh_due")},
            "compose": "planner",
        },
    )


ENTRIES = (
    _online("mbpo", MBPO),
    _online("cmlo", CMLO),
    Entry(
        name="mopo",
        config=MOPO,
        learns="offline",
        module="legato.algorithms.mbpo.mopo",
        presets={"paper": paper_offline, "cpu": cpu_offline},
        play=_PLAY,
        offers={"prepare": "mopo", "for_data": "mopo", "refresh": "mopo", "refresh_due": "mopo", "compose": "mopo"},
    ),
)
