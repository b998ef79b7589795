"""Decision Transformer, Online Decision Transformer and its fine-tuning: hyper-parameters, presets and entries.

Sources: [DT] the official gym code of Chen et al., arXiv 2106.01345; [ODT] the official code of Zheng et al.,
arXiv 2202.05607; [ODT+] Yan et al., arXiv 2410.24108.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import (
    Annealing,
    AtLeast,
    Count,
    Finite,
    Heads,
    Interval,
    Layers,
    NonNegative,
    Positive,
    PositiveShare,
    Rate,
    Share,
    ShareBelowOne,
    Size,
    Steps,
    Whole,
    validate,
)


@dataclass(frozen=True)
class DT:
    """Decision Transformer: causal, over returns-to-go, observations and actions; asked for a return."""

    context: Steps = 20
    """steps that a window holds and the policy reads, K [DT]"""
    decoding: Literal["window", "cache"] = "window"
    """what the policy is trained to be: windows re-encoded at every decision [DT], or a banded mask and a cache"""
    positions: Literal["timestep", "rotary", "none"] = "timestep"
    """a learnt table over the steps of an episode [DT], rotary positions of tokens, or none"""
    episode_length: Annotated[int, AtLeast(1, most=10**7)] = 1000
    """rows of that table: the longest episode that can be learnt from or played [DT]"""
    layers: Layers = 3
    """blocks of the transformer [DT]"""
    heads: Heads = 1
    """attention heads [DT]"""
    size: Size = 128
    """width of the tokens; the blocks' MLPs are four times as wide [DT]"""
    activation: Literal["relu", "gelu"] = "relu"
    """of the blocks' MLPs [DT]"""
    dropout: ShareBelowOne = 0.1
    """share left out of tokens, attention weights and block outputs in training [DT]"""
    returns: bool = True
    """read returns-to-go; without, the same network imitates (a negative control)"""
    history: bool = True
    """read the steps before the present one; without, the same network is Markov (a negative control)"""
    delay_rewards: bool = False
    """every reward paid at the episode's end; the target then stays as it was asked [DT]"""
    gamma: PositiveShare = 1.0
    """discount of returns-to-go per primitive step [DT: none]"""
    scale: Annotated[float, Positive((0, "the data's own"))] = 0.0
    """returns-to-go are divided by this [DT: 1000]; 0: by their root mean square in the data"""
    batch_size: Size = 64
    """windows per update [DT]"""
    learning_rate: Rate = 1e-4
    """AdamW step size [DT]"""
    warmup: Whole = 10_000
    """updates over which the step size rises to its value [DT]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: NonNegative = 1e-4
    """AdamW decay of every parameter [DT]"""
    clip: Rate = 0.25
    """largest global norm of a gradient [DT]"""
    unused: bool = False
    """also carry the parameters that the official network never uses, to have its parameter count"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the network's arithmetic in training; parameters and optimiser stay float32"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DT]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        validate(self)
        if self.delay_rewards and self.gamma < 1:
            raise LegatoError(
                f"a delayed return stays as it was asked; gamma {self.gamma} would discount it: leave one out"
            )
        if self.size % self.heads:
            raise LegatoError(f"size {self.size} does not divide among {self.heads} heads")
        if self.positions == "rotary" and self.size // self.heads % 2:
            each = self.size // self.heads
            raise LegatoError(
                f"rotary positions need an even head size: size {self.size} over {self.heads} heads gives {each}"
            )


@dataclass(frozen=True)
class ODT(DT):
    """Online Decision Transformer: a stochastic Decision Transformer, ready for online fine-tuning."""

    positions: Literal["timestep", "rotary", "none"] = "none"
    """a learnt table over the steps of an episode, rotary positions of tokens, or none [ODT]"""
    layers: Layers = 4
    """blocks of the transformer [ODT]"""
    heads: Heads = 4
    """attention heads [ODT]"""
    size: Size = 512
    """width of the tokens; the blocks' MLPs are four times as wide [ODT]"""
    eval_context: Steps = 5
    """steps that the policy reads of the `context` that it is trained on [ODT]"""
    entropy: Annotated[float, Finite()] = -1.0
    """least entropy of the actions per number of an action, in nats, of actions in [-1, 1] [ODT]"""
    action_clip: Annotated[float, Interval("(0, 1)")] = 1e-6
    """actions are learnt as if they lay so far inside their bounds at least, of a half-width of 1 [ODT]"""
    multiplier: Rate = 0.1
    """what the entropy's bound counts at first [ODT]"""
    multiplier_learning_rate: Rate = 1e-4
    """Adam step size of its logarithm [ODT]"""
    optimiser: Literal["lamb", "adamw"] = "lamb"
    """LAMB [ODT] or AdamW"""
    batch_size: Size = 256
    """windows per update [ODT]"""
    weight_decay: NonNegative = 5e-4
    """decay of every parameter [ODT: 1e-4 to 1e-3]"""

    def __post_init__(self) -> None:
        validate(self)
        super().__post_init__()
        if self.action_units != "bounds":
            raise LegatoError("odt draws actions within their bounds: action_units is bounds")
        if self.eval_context > self.context:
            raise LegatoError(
                f"a policy trained on {self.context} steps reads 1 to {self.context}, not {self.eval_context}"
            )


@dataclass(frozen=True)
class OnlineDT:
    """Online Decision Transformer: collects with a high target return, imitates the result; with `td3`, by Q too."""

    every: Count = 1_000
    """primitive steps between updates; one rollout [ODT]"""
    updates: Whole = 300
    """updates after each [ODT]"""
    start_steps: Whole = 0
    """primitive steps before the first update [ODT: none, as the replay begins with logged episodes]"""
    critic_steps: Whole = 0
    """with `td3`, primitive steps until the transformer is updated as well as the critics"""
    critic_updates: Count = 300
    """with `td3`, updates of the critics alone, each time so many steps were made, until `critic_steps`"""
    n_step: Steps = 1
    """primitive steps whose rewards a critic's target adds up before it bootstraps from the critics, or as many as are
    left in its window"""
    episodes: Count = 1_000
    """whole episodes that the replay keeps, at first of the logs; the worst of these go first [ODT]"""
    offline_episodes: Literal["best", "all"] = "best"
    """which logged episodes these are: the best [ODT], or as many of every return"""
    collect_target_scale: Annotated[float, Finite()] = 2.0
    """the target while collecting, as a multiple of that of evaluations [ODT: 2]"""
    target_increment: NonNegative = 0.0
    """the target of evaluations lies by this share above the best one so far, and never below the first; 0: always the
    first [ODT]
    """
    exploration_scale: NonNegative = 1.0
    """share of the deviation that actions are drawn with while collecting [ODT: all of it]"""
    average: PositiveShare = 1.0
    """rate at which what is deployed follows the transformer, every update; 1: it is the transformer [ODT]"""
    td3: NonNegative = 0.0
    """weight of -Q / mean |Q| beside the likelihood; 0: likelihood alone [ODT], above 0: a TD3 gradient [ODT+]"""
    gamma: Share = 0.99
    """discount per primitive step, of the critics"""
    tau: Share = 0.005
    """Polyak rate of the targets, every update"""
    reward_scale: Annotated[float, Positive((0, "the policy's own"))] = 0.0
    """rewards are divided by this for the critics; 0: by a tenth of the policy's unit of returns"""
    hidden: Size = 256
    """width of the critics' hidden layers"""
    layers: Layers = 2
    """hidden layers of the critics"""
    norm: bool = True
    """normalise the critics' hidden layers"""
    batch_size: Size = 256
    """windows per update [ODT]"""
    learning_rate: Annotated[float, Positive((0, "that of pre-training"))] = 0.0
    """step size of the transformer; 0: that of pre-training [ODT]"""
    critic_learning_rate: Rate = 1e-3
    """AdamW step size of the critics"""
    warmup: Whole = 10_000
    """updates over which both rise to their values, those of pre-training counted where its optimiser goes on [ODT]"""
    weight_decay: Annotated[float, AtLeast(0, otherwise=(-1, "that of pre-training"))] = -1.0
    """decay of every parameter; -1: that of pre-training [ODT]"""
    continue_optimiser: bool = field(default=True, metadata={"before": False})
    """go on with the moments and the count of pre-training's optimiser [ODT], instead of with new ones"""
    clip: Rate = 0.25
    """largest global norm of a gradient [ODT]"""

    def __post_init__(self) -> None:
        validate(self)


# Pre-training of the official code of Zheng et al., by words of the dataset's name: step size, decay, updates and the
# return to ask for.
PRE_TRAINING: dict[str, tuple[float, float, int, float]] = {
    "hopper replay": (2e-3, 1e-4, 5_000, 3600.0),
    "hopper": (1e-4, 5e-4, 5_000, 3600.0),
    "walker2d": (1e-3, 1e-3, 10_000, 5000.0),
    "halfcheetah": (1e-4, 5e-4, 5_000, 6000.0),
}


def paper(task: Task) -> Preset:
    """The Decision Transformer as published."""
    targets = schedules.paper_targets(task)
    return Preset({"scale": 1000.0 if targets else 0.0}, {**schedules.PAPER_LOGS, "targets": targets})


def cpu(task: Task) -> Preset:
    """The Decision Transformer for two cores.

    A table over the steps of an episode is noise until each was seen often, hence rotary positions.
    """
    options = {"layers": 2, "size": 128, "context": 5, "positions": "rotary"}
    return Preset({**schedules.FEWER_LOGGED_UPDATES, **options}, schedules.CPU_LOGS)


def paper_online(task: Task) -> Preset:
    """Pre-training of the Online Decision Transformer as published."""
    found = next((of for words, of in PRE_TRAINING.items() if task.has(words)), None)
    if found is None:
        return Preset({}, {"updates": 5_000, "eval_every": 5_000})
    rate, decay, updates, target = found
    options = {"learning_rate": rate, "weight_decay": decay, "scale": 1000.0}
    return Preset(options, {"updates": updates, "eval_every": updates, "targets": (target,)})


def cpu_online(task: Task) -> Preset:
    """Pre-training of the Online Decision Transformer for two cores.

    At the published edge an action at its bound lies 7 out before the tanh, and a normal distribution follows it.
    """
    options = {"learning_rate": 1e-3, "warmup": 100, "anneal_over": -1, "dropout": 0.0, "weight_decay": 1e-4}
    options |= {"layers": 2, "heads": 1, "size": 128, "context": 5, "positions": "rotary", "batch_size": 64}
    options |= {"optimiser": "adamw", "multiplier_learning_rate": 1e-3, "action_clip": 0.01}
    return Preset(options, schedules.CPU_LOGS)


def paper_finetuning(task: Task) -> Preset:
    """Online fine-tuning as published."""
    return Preset({}, {"steps": 1_500_000, "eval_every": 10_000})


def cpu_finetuning(task: Task) -> Preset:
    """Online fine-tuning for two cores, with a short warm-up of its own: pre-training's has ended, its step size too.

    From logs it explores less while collecting, and begins with episodes of every return.
    """
    options = {"batch_size": 64, "warmup": 100, "weight_decay": 1e-4, "learning_rate": 1e-4}
    options |= {"continue_optimiser": False, "critic_steps": 3_000, "critic_updates": 2_000, "n_step": 4}  # with `td3`
    if task.scratch:
        return Preset(options)
    options |= {
        "offline_episodes": "all",
        "collect_target_scale": 1.2,
        "exploration_scale": 0.5,
        "target_increment": 0.1,
        "average": 0.005,
    }
    return Preset(options, {"eval_every": 2_500, "rollback": True, "regression_tolerance": 0.05})


def _details(config: DT) -> list[str]:
    found = ["cache"] if config.decoding == "cache" else []
    return found + [f"no {what}" for what in ("returns", "history") if not getattr(config, what)]


ENTRIES = (
    Entry(
        name="dt",
        config=DT,
        learns="offline",
        module="legato.algorithms.decision_transformer.decision_transformer",
        presets={"paper": paper, "cpu": cpu},
        details=_details,
        command=lambda config: "return" if config.returns else "nothing",
        discrete=True,
        offers={"for_data": "decision_transformer", "attention": "attention"},
    ),
    Entry(
        name="odt",
        config=ODT,
        learns="offline",
        module="legato.algorithms.decision_transformer.online_decision_transformer",
        presets={"paper": paper_online, "cpu": cpu_online},
        details=_details,
        command=lambda config: "return" if config.returns else "nothing",
        offers={"attention": "online_decision_transformer"},
    ),
    Entry(
        name="odt-online",
        config=OnlineDT,
        learns="finetuning",
        module="legato.algorithms.decision_transformer.finetuning",
        presets={"paper": paper_finetuning, "cpu": cpu_finetuning},
        continues=("odt",),
        offers={"continues": "finetuning"},
    ),
)
