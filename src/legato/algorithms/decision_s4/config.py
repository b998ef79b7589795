"""Decision S4 and its two fine-tunings: hyper-parameters, presets and entries.

Source: [DS4] Bar-David et al., arXiv 2306.05167, whose code is not public: its values are those of the code that
descends from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import (
    Annealing,
    AtLeast,
    Count,
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
class DS4:
    """Decision S4: state-space layers trained as convolutions on whole episodes, acting as a recurrence."""

    core: Literal["s4", "s4d", "s5"] = "s4d"
    """the layers' systems: full (NPLR) or diagonal per channel, or one diagonal system for all channels [DS4: s4]"""
    layers: Layers = 3
    """state-space blocks [DS4]"""
    channels: Size = 64
    """width of the blocks, H [DS4: 64 or 96]"""
    order: Annotated[int, AtLeast(1, most=4_096)] = 96
    """state size of a system, N [DS4]"""
    embedding: Size = 128
    """width of the embeddings of observation, previous action and return-to-go [DS4]"""
    spectrum: Literal["lin", "inv", "legs"] = "lin"
    """where S4D's modes begin"""
    discretisation: Literal["zoh", "bilinear"] = "zoh"
    """of S4D and S5; S4 is bilinear"""
    residual: bool = True
    """add a block's input to its output [DS4: off]"""
    norm: bool = False
    """normalise a block's input [DS4: off]"""
    squash: bool = True
    """tanh at the output, so that actions keep to their bounds [DS4: off]"""
    dropout: ShareBelowOne = 0.1
    """share of hidden units left out in training [DS4: 0 to 0.1]"""
    freeze_core: bool = False
    """leave A, B and the step sizes as they began [DS4: on]"""
    core_learning_rate: Rate = 1e-3
    """Adam step size of A, B and the step sizes, without decay, after the same warm-up"""
    paper_alignment: bool = False
    """inputs (s_t+1, a_t, R_t), targets a_t+1, as in the code that descends from [DS4]: a_0 is then never learnt"""
    returns: bool = True
    """read returns-to-go; without, the same network imitates (a negative control)"""
    history: bool = True
    """carry states and read the previous action; without, the same network is Markov (a negative control)"""
    delay_rewards: bool = False
    """every reward paid at the episode's end; the target then stays as it was asked"""
    gamma: PositiveShare = 1.0
    """discount of returns-to-go per primitive step"""
    scale: Annotated[float, Positive((0, "the data's own"))] = 0.0
    """returns-to-go are divided by this [DS4: 1000]; 0: by their root mean square in the data"""
    length: Size = 1000
    """primitive steps of an episode per update; of a longer one, a stretch from a random step on, from zero states"""
    batch_size: Size = 64
    """episodes per update [DS4]"""
    learning_rate: Rate = 1e-4
    """AdamW step size [DS4]"""
    warmup: Whole = 10_000
    """updates over which the step size rises to its value [DS4]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: NonNegative = 1e-4
    """AdamW decay of the dense layers; the systems have none [DS4]"""
    clip: Rate = 0.25
    """largest global norm of a gradient [DS4]"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the dense layers' arithmetic in training; the systems are always float32"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DS4]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        validate(self)
        if self.delay_rewards and self.gamma < 1:
            raise LegatoError(
                f"a delayed return stays as it was asked; gamma {self.gamma} would discount it: leave one out"
            )
        if self.order % 2:
            raise LegatoError(f"order counts conjugate pairs and is even; {self.order} was given")
        if self.paper_alignment and self.length < 2:
            raise LegatoError(f"length must be at least 2 in the paper's alignment; {self.length} was given")


@dataclass(frozen=True)
class DS4AC:
    """Decision S4 fine-tuned by acting: a deterministic actor-critic over stored states, one recurrent step deep."""

    every: Count = 10
    """primitive steps between updates [DS4]"""
    updates: Whole = 4
    """updates, each time so many steps were made [DS4]"""
    start_steps: Whole = 5_000
    """primitive steps before the first update [DS4]"""
    critic_steps: Whole = 50_000
    """primitive steps until the actor is updated as well [DS4]"""
    critic_updates: Count = 40
    """updates of the critics alone, each time so many steps were made, until `critic_steps` [DS4]"""
    critics_per_actor: Count = 1
    """steps of the critics in each update of both, before the actor's [DS4: 1]"""
    noise: Annotated[tuple[float, float, float], AtLeast(0)] = (0.3, 0.1, 0.05)
    """deviation of the actions' noise, in units of their bounds: before the actor is updated, then, and at last"""
    noise_over: Whole = 50_000
    """primitive steps from the second to the last"""
    target_variation: ShareBelowOne = 0.15
    """an episode's target lies up to this share above or below the present one [DS4]"""
    target_increment: NonNegative = 0.1
    """the present target lies by this share above the best evaluation so far, and never below the first [DS4]"""
    relabel: bool = False
    """write episodes into the replay as if they had been asked for what they earned [DS4]"""
    critic_reads_return: bool = True
    """the critics read the return-to-go as well [DS4: either]"""
    freeze_core: bool = True
    """leave A, B and the step sizes alone, so that stored states stay what they are [DS4]"""
    refresh_every: Whole = 0
    """updates of the actor between renewals of all stored states; 0: never"""
    regularisation_weight: NonNegative = 0.0
    """weight of the squared distance to the actions of a reference policy beside -Q / mean |Q|; 0: -Q alone [DS4]"""
    min_regularisation_scale: Share = 0.0
    """every rollback halves the scale that this weight is divided by, down to this at least: 0.25 is four times the
    weight at most
    """
    regularise_towards: Literal["best", "start"] = "best"
    """the reference policy: the one that evaluated best so far, or always the offline one"""
    gamma: Share = 0.99
    """discount per primitive step, of the critics [DS4]"""
    n_step: Steps = 1
    """primitive steps whose rewards a critic's target adds up before it bootstraps from the critics [DS4: 1]"""
    smoothing: NonNegative = 0.0
    """deviation of noise on the actions of a critic's target, in units of their bounds [DS4: none, TD3: 0.2]"""
    termination_penalty: NonNegative = 0.0
    """where the environment ends an episode, this share of the return-to-go that is left counts as lost to the critics
    [DS4: 0]
    """
    reward_scale: Annotated[float, Positive((0, "the policy's own"))] = 0.0
    """rewards are divided by this for the critics [DS4: 1000]; 0: by a tenth of the policy's unit of returns"""
    offline_steps: Whole = 0
    """primitive steps of logged episodes, good and bad, that the replay begins with; 0: none [DS4]"""
    hidden: Size = 256
    """width of the critics' hidden layers"""
    layers: Layers = 2
    """hidden layers of the critics"""
    norm: bool = True
    """normalise the critics' hidden layers, so that they do not rise without bound where nothing was seen [DS4: off]"""
    batch_size: Size = 64
    """steps per update [DS4: 64 to 100]"""
    tau: Share = 0.005
    """Polyak rate of the targets, every update [DS4: either]; 0: copied every `target_every` updates"""
    average: PositiveShare = 1.0
    """rate at which what is deployed follows the actor, every update; 1: it is the actor [DS4]"""
    target_every: Count = 800
    """updates between copies into the targets [DS4: 2000 primitive steps]"""
    learning_rate: Rate = 1e-5
    """AdamW step size of the actor [DS4]"""
    critic_learning_rate: Rate = 1e-3
    """AdamW step size of the critics [DS4: 1e-3 or 1e-4]"""
    warmup: Whole = 100
    """updates over which the step sizes rise to their values"""
    weight_decay: NonNegative = 1e-3
    """AdamW decay of the critics [DS4]"""
    clip: Rate = 0.5
    """largest global norm of a gradient [DS4]"""

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class DS4RW:
    """Decision S4 fine-tuned by imitating its own episodes, whole, the better ones more: slow and stable."""

    every: Count = 1_000
    """primitive steps between updates"""
    updates: Whole = 50
    """updates, each time so many steps were made"""
    start_steps: Whole = 0
    """primitive steps before the first update"""
    episodes: Count = 200
    """whole episodes that the replay keeps, at first the best of the logs [DS4: 2000]"""
    pivot_deviations: NonNegative = 0.4
    """an episode counts 1 that earned this many deviations more than their mean, at its highest so far [DS4]"""
    sharpness: NonNegative = 1.0
    """how fast that rises with what was earned: exp(sharpness (return - pivot) / |pivot|), 0.01 to 10 [DS4: 1]"""
    noise: NonNegative = 0.1
    """deviation of the actions' noise while collecting, in units of their bounds"""
    target_variation: ShareBelowOne = 0.15
    """an episode's target lies up to this share above or below the present one [DS4]"""
    target_increment: NonNegative = 0.1
    """the present target lies by this share above the best evaluation so far, and never below the first [DS4]"""
    batch_size: Size = 4
    """episodes per update [DS4: 64]"""
    learning_rate: Rate = 1e-4
    """AdamW step size [DS4]"""
    warmup: Whole = 100
    """updates over which it rises to its value"""
    weight_decay: NonNegative = 1e-4
    """AdamW decay of the dense layers; the systems have none [DS4]"""
    clip: Rate = 0.25
    """largest global norm of a gradient [DS4]"""

    def __post_init__(self) -> None:
        validate(self)


def paper(task: Task) -> Preset:
    """As published."""
    targets = schedules.paper_targets(task)
    return Preset({"scale": 1000.0 if targets else 0.0}, {**schedules.PAPER_LOGS, "targets": targets})


def cpu(task: Task) -> Preset:
    """For two cores: few whole episodes rather than many parts of them, as a state that was never that old misleads
    the policy later on."""
    options = {"channels": 96, "order": 16, "layers": 2, "norm": True, "batch_size": 4, "learning_rate": 3e-3}
    return Preset({**schedules.FEWER_LOGGED_UPDATES, **options}, schedules.CPU_LOGS)


# Where the cpu preset of ds4-ac differs, by what the environment is called. Walker2d stumbles now and then whatever it
# does: larger and slower critics, more episodes to judge by, more patience.
BY_ENVIRONMENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "walker2d": (
        {"hidden": 256, "critic_learning_rate": 3e-4, "critic_steps": 7_500, "termination_penalty": 0.05}
        | {"regularisation_weight": 1.0, "min_regularisation_scale": 0.25, "target_increment": 0.1},
        {"regression_tolerance": 0.1, "eval_episodes": 20},
    ),
}


def paper_actor_critic(task: Task) -> Preset:
    """As in the code that descends: a quiet critic phase, returns relabelled, and targets copied now and then."""
    options = {"noise": (0.0, 0.75, 0.005), "noise_over": 90_000, "relabel": True, "tau": 0.0, "norm": False}
    return Preset({**options, "critic_learning_rate": 1e-4, "warmup": 10_000}, {"steps": 1_000_000})


def cpu_actor_critic(task: Task) -> Preset:
    """Critics that are accurate sooner and have seen failures, and an actor regularised towards its best.

    From scratch there is no policy to be regularised towards, and no logs.
    """
    options: dict[str, Any] = {"start_steps": 1_000, "n_step": 10, "hidden": 128, "smoothing": 0.1, "average": 0.02}
    if task.scratch:
        options |= {"critic_steps": 2_000, "critic_updates": 4, "batch_size": 128, "tau": 0.01}
        return Preset({**options, "learning_rate": 3e-4, "noise": (0.5, 0.3, 0.1)})
    options |= {
        "critic_steps": 5_000,
        "critics_per_actor": 10,
        "offline_steps": 30_000,
        "termination_penalty": 0.2,
        "average": 0.005,
    }
    options |= {"critic_reads_return": False, "noise": (0.1, 0.1, 0.1), "target_variation": 0.05}
    options |= {"learning_rate": 5e-5, "regularisation_weight": 0.5, "target_increment": 0.3}
    settings = {"eval_every": 2_500, "rollback": True, "regression_tolerance": 0.05}
    found = (of for name, of in BY_ENVIRONMENT.items() if name in task.name.lower())
    of_options, of_settings = next(found, ({}, {}))
    return Preset({**options, **of_options}, {**settings, **of_settings})


def paper_reweighted(task: Task) -> Preset:
    """As published."""
    return Preset({"episodes": 2_000, "batch_size": 64})


def cpu_reweighted(task: Task) -> Preset:
    """For two cores: the defaults."""
    return Preset()


ENTRIES = (
    Entry(
        name="ds4",
        config=DS4,
        learns="offline",
        module="legato.algorithms.decision_s4.decision_s4",
        presets={"paper": paper, "cpu": cpu},
        details=lambda config: [f"no {what}" for what in ("returns", "history") if not getattr(config, what)],
        command=lambda config: "return" if config.returns else "nothing",
        discrete=True,
        offers={"for_data": "decision_s4"},
    ),
    Entry(
        name="ds4-ac",
        config=DS4AC,
        learns="finetuning",
        module="legato.algorithms.decision_s4.actor_critic",
        presets={"paper": paper_actor_critic, "cpu": cpu_actor_critic},
        continues=("ds4",),
        offers={"refresh": "stored_states", "refresh_due": "stored_states"},
    ),
    Entry(
        name="ds4-rw",
        config=DS4RW,
        learns="finetuning",
        module="legato.algorithms.decision_s4.reweighted",
        presets={"paper": paper_reweighted, "cpu": cpu_reweighted},
        continues=("ds4",),
    ),
)
