"""Trajectory Transformer: hyper-parameters, presets and entry.

Source: [TT] the official code of Janner et al., arXiv 2106.02039.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import (
    Annealing,
    AtLeast,
    Heads,
    Layers,
    NonNegative,
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
class TT:
    """Trajectory Transformer: a model of trajectories as tokens, and a beam search in it for every decision."""

    bins: Annotated[int, AtLeast(2, most=100_000)] = 100
    """tokens per number of an observation, action, reward or value [TT]"""
    edges: Literal["quantile", "uniform"] = "quantile"
    """bins that hold equally many of the data's numbers, or equally wide ones [TT: either]"""
    centres: Literal["middle", "mean"] = "middle"
    """what a token is read back as: the middle of its bin [TT], or the mean of the data in it"""
    cosine_embeddings: bool = False
    """embeddings alike for neighbouring bins, at first and as they are learnt, instead of independent ones [TT]"""
    window: Annotated[int, AtLeast(2, most=10**5)] = 10
    """steps that a training window holds [TT]"""
    layers: Layers = 4
    """blocks of the transformer [TT]"""
    heads: Heads = 4
    """attention heads [TT]"""
    size: Size = 128
    """width of the tokens; the blocks' MLPs are four times as wide [TT]"""
    dropout: ShareBelowOne = 0.1
    """share left out of tokens, attention weights and block outputs in training [TT]"""
    action_weight: Rate = 5.0
    """of an action's token in the loss; all others count 1 [TT]"""
    label_smoothing_bins: NonNegative = 0.0
    """targets are distributions so many bins wide about each token, of the same mean; 0: the token alone [TT]"""
    returns: bool = True
    """tokens of reward and value, which the search for return needs; without, the same network imitates [TT]"""
    goals: Literal["none", "last", "later"] = "none"
    """put an observation to be reached in front of the window: in training the episode's last [TT], or any after it"""
    gamma: PositiveShare = 0.99
    """discount of values per primitive step, in the data and in the search [TT]"""
    penalty: float | None = -100.0
    """the reward at a true termination is replaced by this; None leaves it [TT]"""
    search: Literal["return", "likelihood", "mean"] = "return"
    """what a plan is: the best of a search for return, the likeliest one [TT: either], or the mean of each number"""
    context: Annotated[int, AtLeast(2, most=10**5)] = 5
    """steps that the planner reads, the one being written included [TT]"""
    horizon: Steps = 15
    """primitive steps of a plan [TT: 5 to 20]"""
    beams: Size = 128
    """sequences that the search keeps [TT: 32 to 128]"""
    expand: Annotated[int, AtLeast(1, most=10_000)] = 2
    """continuations tried of each sequence, of a search for return [TT]"""
    elite_fraction: Share = 0.0
    """execute the mean of this share of the plans, the best, of a search for return; 0: the best one alone [TT]"""
    plan_temperature: NonNegative = 0.0
    """weigh these by exp(return / (plan_temperature x the standard deviation of the bins of values)), as MPPI does; 0:
    all alike
    """
    action_cdf: ShareBelowOne = 0.6
    """the least likely action tokens that together have less than this are not sampled; 0: all may be [TT]"""
    action_k: Whole = 0
    """only so many of the likeliest action tokens may be sampled; 0: any number [TT: 40 on one dataset]"""
    observation_k: Whole = 1
    """the same of observations: 1 takes the likeliest [TT]; 0: any number"""
    percentile: ShareBelowOne = 0.0
    """rewards and values are this quantile of their distribution, 0 to 1, instead of their mean (0) [TT: mean]"""
    batch_size: Size = 256
    """windows per update [TT]"""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW for all parameters [TT], or Muon for the matrices inside the transformer"""
    learning_rate: Rate = 6e-4
    """step size [TT]"""
    warmup: Whole = 4_000
    """updates over which the step size rises to its value [TT: one pass over the data]"""
    anneal_over: Annealing = 0
    """updates over which the step size then falls along a cosine to a tenth; 0: never, -1: the run [TT: 20 passes]"""
    weight_decay: NonNegative = 0.1
    """decay of matrices (of Muon, of those it steps in); biases, norms and tables have none [TT]"""
    clip: Rate = 1.0
    """largest global norm of a gradient [TT]"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the network's arithmetic in training; parameters and optimiser stay float32"""

    def __post_init__(self) -> None:
        validate(self)
        if self.plan_temperature and not self.elite_fraction:
            raise LegatoError(
                "plan_temperature weighs several plans: say of which share of them with elite_fraction (1: all)"
            )
        if self.size % self.heads:
            raise LegatoError(f"size {self.size} does not divide among {self.heads} heads")
        if self.context > self.window:
            raise LegatoError(f"a planner cannot read {self.context} steps in a model of {self.window}: lower context")
        if self.search == "return" and not self.returns:
            raise LegatoError("a search for return needs tokens of reward and value: choose search likelihood or mean")
        if self.goals != "none" and self.search == "return":
            raise LegatoError("a goal is not reached by return: choose search likelihood or mean")


# How the official code learns and plans, by words of the dataset's name, where it differs from its base; the first
# entry whose words are all there. `updates` is a setting.
BY_DATASET: dict[str, dict[str, Any]] = {
    "halfcheetah medium expert": {"beams": 32},
    "halfcheetah medium": {"horizon": 5, "beams": 32},
    "hopper medium replay": {"updates": 312_000},
    "walker2d medium expert": {"horizon": 5},
    "walker2d medium replay": {"horizon": 20, "beams": 32, "action_k": 40, "action_cdf": 0.0, "updates": 312_000},
    "ant medium expert": {},
    "ant": {"horizon": 5, "batch_size": 128, "updates": 390_000},
}


def paper(task: Task) -> Preset:
    """As published."""
    found = next((options for words, options in BY_DATASET.items() if task.has(words)), {})
    updates = found.get("updates", 195_000)
    options = {"anneal_over": 80_000, **{name: value for name, value in found.items() if name != "updates"}}
    return Preset(options, {"updates": updates, "eval_every": updates // 3, "checkpoint_every": 5_000})


def cpu(task: Task) -> Preset:
    """For two cores: a smaller network, which is soon trained, by an optimiser that needs half as many updates; bins
    with neighbours.

    It plans one step ahead, by the mean of what the data may do, weighed by what each is worth: that leaves out the
    noise that a behaviour policy acted with.
    """
    options: dict[str, Any] = {"layers": 2, "size": 64, "heads": 4, "window": 4, "context": 4}
    options |= {"cosine_embeddings": True, "centres": "mean", "label_smoothing_bins": 1.5}
    options |= {"batch_size": 32, "optimiser": "muon", "learning_rate": 5e-3, "warmup": 100, "anneal_over": -1}
    options |= {"dropout": 0.0, "weight_decay": 0.01}
    options |= {
        "horizon": 1,
        "beams": 64,
        "expand": 1,
        "elite_fraction": 1.0,
        "plan_temperature": 0.1,
        "action_cdf": 0.0,
    }
    return Preset(options, {"updates": 3_000, "eval_every": 3_000, "eval_episodes": 5, "checkpoint_every": 500})


def _details(config: TT) -> list[str]:
    found = ["uniform"] if config.edges == "uniform" else []
    return found + ([config.search] if config.search != "return" else [])


# What training does not depend on: a trained policy may be played with other values.
SEARCH = (
    "search",
    "context",
    "horizon",
    "beams",
    "expand",
    "elite_fraction",
    "plan_temperature",
    "action_cdf",
    "action_k",
)
SEARCH += ("observation_k", "percentile")

ENTRIES = (
    Entry(
        name="tt",
        config=TT,
        learns="offline",
        module="legato.algorithms.trajectory_transformer.trajectory_transformer",
        presets={"paper": paper, "cpu": cpu},
        details=_details,
        command=lambda config: "goal" if config.goals != "none" else "nothing",
        discrete=True,
        play={name: type(getattr(TT(), name)) for name in SEARCH},
        offers={
            "prepare": "trajectory_transformer",
            "compose": "search",
            "attention": "attention",
            "trajectories": "sampler",
        },
    ),
)
