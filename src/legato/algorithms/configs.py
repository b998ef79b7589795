"""The hyper-parameters of every algorithm, with unit and source.

They stand apart from the algorithms because this file does not import JAX: `--help` and misspelt options are answered
at once. Sources: [SRL] the official code of Patel & Siegelmann, arXiv 2410.08979; [SAC] Haarnoja et al.,
arXiv 1812.05905; [DT] the official gym code of Chen et al., arXiv 2106.01345; [DS4] Bar-David et al., arXiv 2306.05167,
whose code is not public: its values are those of the code that descends from it; [TT] the official code of Janner et
al., arXiv 2106.02039; [IQL] the official code of Kostrikov et al., arXiv 2110.06169; [ODT] the official code of Zheng
et al., arXiv 2202.05607; [ODT+] Yan et al., arXiv 2410.24108.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from legato.errors import LegatoError


def _check_common(config: SAC | TD3 | SRL | IQL) -> None:
    for name in ("hidden", "batch_size"):
        if getattr(config, name) < 1:
            raise LegatoError(f"{name} must be at least 1; {getattr(config, name)} was given")
    if not 0 <= config.gamma <= 1:
        raise LegatoError(f"gamma must lie in [0, 1]; {config.gamma} was given")
    if not 0 < config.tau <= 1:
        raise LegatoError(f"tau must lie in (0, 1]; {config.tau} was given")
    if config.learning_rate <= 0:
        raise LegatoError(f"learning_rate must be positive; {config.learning_rate} was given")
    if config.anneal_over < -1:
        raise LegatoError(f"anneal_over must be at least -1; {config.anneal_over} was given")


@dataclass(frozen=True)
class SAC:
    """Soft actor-critic, with each action held for `action_repeat` primitive steps while collecting (SAC-J)."""

    action_repeat: int = 1
    """primitive steps for which an action is held, J of SAC-J [SRL]"""
    updates: Literal["decision", "step"] = "step"
    """what an update and a transition stand for: a held decision (the paper's SAC-J), or every primitive step"""
    hidden: int = 256
    """width of the two hidden layers of actor and critics [SAC, SRL]"""
    batch_size: int = 256
    """transitions per update [SAC, SRL]"""
    learning_rate: float = 3e-4
    """Adam step size of actor, critics and temperature [SAC, SRL]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SAC, SRL], -1: the run"""
    gamma: float = 0.99
    """discount per transition [SAC, SRL]"""
    tau: float = 0.005
    """Polyak rate of the target critics, every update [SAC, SRL]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which actions are learnt: those of their bounds, [-1, 1], or the environment's, as published [SAC, SRL]"""

    def __post_init__(self) -> None:
        _check_common(self)
        if self.action_repeat < 1:
            raise LegatoError(f"action_repeat must be at least 1; {self.action_repeat} was given")


@dataclass(frozen=True)
class TD3:
    """Twin delayed deep deterministic policy gradients: one deterministic action at every step."""

    noise: float = 0.1
    """deviation of the noise on actions while collecting, in units of their bounds [TD3]"""
    smoothing: float = 0.2
    """deviation of the noise on the actions of targets, in units of their bounds [TD3]"""
    smoothing_clip: float = 0.5
    """its largest size [TD3]"""
    actor_every: int = 2
    """updates of the critics per update of actor and targets [TD3]"""
    hidden: int = 256
    """width of the two hidden layers of actor and critics [TD3: 400 and 300, later 256]"""
    batch_size: int = 256
    """transitions per update [TD3: 100, later 256]"""
    learning_rate: float = 3e-4
    """Adam step size of actor and critics [TD3: 1e-3, later 3e-4]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [TD3], -1: the run"""
    gamma: float = 0.99
    """discount per primitive step [TD3]"""
    tau: float = 0.005
    """Polyak rate of the targets, with every update of the actor [TD3]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which critics read actions: those of their bounds, [-1, 1], or the environment's, as published [TD3]"""

    def __post_init__(self) -> None:
        _check_common(self)
        if self.actor_every < 1:
            raise LegatoError(f"actor_every must be at least 1; {self.actor_every} was given")
        for name in ("noise", "smoothing", "smoothing_clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise LegatoError(f"{name} must be at least 0 and finite; {getattr(self, name)} was given")


@dataclass(frozen=True)
class SRL:
    """Sequence Reinforcement Learning: an actor that emits `horizon` actions, taught through a learned model."""

    horizon: int = 4
    """primitive actions per decision while training, J [SRL]"""
    cell: Literal["gru", "rnn"] = "gru"
    """recurrent cell of the actor [SRL]"""
    hidden: int = 256
    """width of the actor and of the critics' two hidden layers [SRL]"""
    model_hidden: tuple[int, int] = (400, 300)
    """widths of the dynamics model's hidden layers [SRL]"""
    batch_size: int = 256
    """transitions per minibatch; an update draws two [SRL]"""
    learning_rate: float = 3e-4
    """Adam step size of actor, critics, model and temperature [SRL]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SRL], -1: the run"""
    gamma: float = 0.99
    """discount per primitive step [SRL]"""
    tau: float = 0.005
    """Polyak rate of target critics and target model, every update [SRL]"""
    actor_every: int = 1
    """critic and model updates per update of actor and temperature [SRL]"""
    teaching: Literal["recall", "through_time"] = "recall"
    """the actor learns from every step's value, states held still [SRL], or from the last one's, back through time"""
    execute: int = 0
    """primitive actions of a plan that are executed while collecting, before the next is made; 0: all J [SRL], -1: a
    random number of them"""
    model_target: Literal["observation", "difference"] = "observation"
    """what the model predicts: the next observation [SRL], or its change, in units of how much it usually changes; a
    latent state, which has no units, it predicts itself"""
    model_steps: int = 0
    """steps ahead that the model learns to predict from its own predictions; 0: 1 [SRL], or 5 with a latent state"""
    model_decay: float = 0.5
    """weight of each further of these steps"""
    critic: Literal["one_step", "time_aware", "open_loop"] = "one_step"
    """what the critics know: state and action [SRL]; or the action's place in the plan too, and the model's state there
    [SRL's variant]; or also that the rest of the plan will run without looking"""
    recall_ends: bool = False
    """what is taught of predicted states counts as much as they are likely to be reached before the episode ends"""
    vary: bool = False
    """each update teaches the beginning of a plan, of random length, instead of all of it [SRL]"""
    grow_over: int = 0
    """updates over which plans grow from 1 action to J; 0: they are J long from the first [SRL], -1: half the run"""
    latent: int = 0
    """size of a learnt state that actor, critics and model work in, found by temporal consistency; 0: the observation
    itself [SRL]; 50 in SRL's variant"""
    n_step: int = 1
    """rewards that the critics' target adds up before it asks the critics [SRL: 1]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which actions are learnt: those of their bounds, [-1, 1], or the environment's, as published [SRL]"""

    def __post_init__(self) -> None:
        _check_common(self)
        for name in ("horizon", "actor_every", "n_step"):
            if getattr(self, name) < 1:
                raise LegatoError(f"{name} must be at least 1; {getattr(self, name)} was given")
        if not -1 <= self.execute <= self.horizon:
            raise LegatoError(f"execute must lie between -1 and the horizon, {self.horizon}; {self.execute} was given")
        for name in ("model_steps", "latent"):
            if getattr(self, name) < 0:
                raise LegatoError(f"{name} must be at least 0; {getattr(self, name)} was given")
        if not 0 < self.model_decay <= 1:
            raise LegatoError(f"model_decay must lie in (0, 1]; {self.model_decay} was given")
        if self.grow_over < -1:
            raise LegatoError(f"grow_over must be at least -1; {self.grow_over} was given")
        if self.n_step > 1 and self.critic != "one_step":
            raise LegatoError(f"n_step {self.n_step} needs critics that know one step; critic {self.critic} was given")


def _check_offline(config: BC | DT | DS4 | TT, *positive: str) -> None:
    for name in ("batch_size", *positive):
        if getattr(config, name) < 1:
            raise LegatoError(f"{name} must be at least 1; {getattr(config, name)} was given")
    if config.learning_rate <= 0:
        raise LegatoError(f"learning_rate must be positive; {config.learning_rate} was given")
    if config.anneal_over < -1:
        raise LegatoError(f"anneal_over must be at least -1; {config.anneal_over} was given")
    if config.warmup < 0:
        raise LegatoError(f"warmup must be at least 0; {config.warmup} was given")
    if config.weight_decay < 0:
        raise LegatoError(f"weight_decay must be at least 0; {config.weight_decay} was given")
    if config.clip <= 0:
        raise LegatoError(f"clip must be positive; {config.clip} was given")
    if not 0 <= config.dropout < 1:
        raise LegatoError(f"dropout must lie in [0, 1); {config.dropout} was given")


def _check_returns(config: DT | DS4) -> None:
    if not 0 < config.gamma <= 1:
        raise LegatoError(f"gamma must lie in (0, 1]; {config.gamma} was given")
    if config.delayed and config.gamma < 1:
        raise LegatoError(
            f"a delayed return stays as it was asked; gamma {config.gamma} would discount it: leave one out"
        )
    if config.scale < 0:
        raise LegatoError(f"scale must be positive, or 0 for the data's own; {config.scale} was given")


@dataclass(frozen=True)
class BC:
    """Behaviour cloning: an MLP answers an observation with the logged action; of the best episodes only in %BC."""

    fraction: float = 1.0
    """share of the steps to learn from, taken from the episodes of highest return; 0.1 is 10%BC [DT]"""
    hidden: int = 256
    """width of the hidden layers [DT]"""
    layers: int = 3
    """hidden layers [DT]"""
    dropout: float = 0.1
    """share of hidden units left out in training [DT]"""
    batch_size: int = 64
    """steps per update [DT]"""
    learning_rate: float = 1e-4
    """AdamW step size [DT]"""
    warmup: int = 0
    """updates over which the step size rises to its value [DT: 10 000 for its transformer]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: float = 1e-4
    """AdamW decay of every parameter [DT]"""
    clip: float = 0.25
    """largest global norm of a gradient [DT]"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DT]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        _check_offline(self, "hidden", "layers")
        if not 0 < self.fraction <= 1:
            raise LegatoError(f"fraction must lie in (0, 1]; {self.fraction} was given")


@dataclass(frozen=True)
class DT:
    """Decision Transformer: causal, over returns-to-go, observations and actions; asked for a return."""

    context: int = 20
    """steps that a window holds and the policy reads, K [DT]"""
    memory: Literal["window", "cache"] = "window"
    """what the policy is trained to be: windows re-encoded at every decision [DT], or a banded mask and a cache"""
    positions: Literal["timestep", "rotary", "none"] = "timestep"
    """a learnt table over the steps of an episode [DT], rotary positions of tokens, or none"""
    episode_length: int = 1000
    """rows of that table: the longest episode that can be learnt from or played [DT]"""
    layers: int = 3
    """blocks of the transformer [DT]"""
    heads: int = 1
    """attention heads [DT]"""
    size: int = 128
    """width of the tokens; the blocks' MLPs are four times as wide [DT]"""
    activation: Literal["relu", "gelu"] = "relu"
    """of the blocks' MLPs [DT]"""
    dropout: float = 0.1
    """share left out of tokens, attention weights and block outputs in training [DT]"""
    returns: bool = True
    """read returns-to-go; without, the same network imitates (a negative control)"""
    history: bool = True
    """read the steps before the present one; without, the same network is Markov (a negative control)"""
    delayed: bool = False
    """every reward paid at the episode's end; the target then stays as it was asked [DT]"""
    gamma: float = 1.0
    """discount of returns-to-go per primitive step [DT: none]"""
    scale: float = 0.0
    """returns-to-go are divided by this [DT: 1000]; 0: by their root mean square in the data"""
    batch_size: int = 64
    """windows per update [DT]"""
    learning_rate: float = 1e-4
    """AdamW step size [DT]"""
    warmup: int = 10_000
    """updates over which the step size rises to its value [DT]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: float = 1e-4
    """AdamW decay of every parameter [DT]"""
    clip: float = 0.25
    """largest global norm of a gradient [DT]"""
    unused: bool = False
    """also carry the parameters that the official network never uses, to have its parameter count"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the network's arithmetic in training; parameters and optimiser stay float32"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DT]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        _check_offline(self, "context", "episode_length", "layers", "heads", "size")
        _check_returns(self)
        if self.size % self.heads:
            raise LegatoError(f"size {self.size} does not divide among {self.heads} heads")
        if self.positions == "rotary" and self.size // self.heads % 2:
            raise LegatoError(f"rotary positions turn pairs of numbers; a head of {self.size // self.heads} has a rest")


@dataclass(frozen=True)
class ODT(DT):
    """Online Decision Transformer: a Decision Transformer that draws its actions, ready to go on learning by acting."""

    positions: Literal["timestep", "rotary", "none"] = "none"
    """a learnt table over the steps of an episode, rotary positions of tokens, or none [ODT]"""
    layers: int = 4
    """blocks of the transformer [ODT]"""
    heads: int = 4
    """attention heads [ODT]"""
    size: int = 512
    """width of the tokens; the blocks' MLPs are four times as wide [ODT]"""
    reads: int = 5
    """steps that the policy reads of the `context` that it is trained on [ODT]"""
    entropy: float = -1.0
    """least entropy of the actions per number of an action, in nats, of actions in [-1, 1] [ODT]"""
    edge: float = 1e-6
    """actions are learnt as if they lay so far inside their bounds at least, of a half-width of 1 [ODT]"""
    multiplier: float = 0.1
    """what the entropy's bound counts at first [ODT]"""
    multiplier_learning_rate: float = 1e-4
    """Adam step size of its logarithm [ODT]"""
    optimiser: Literal["lamb", "adamw"] = "lamb"
    """LAMB [ODT] or AdamW"""
    batch_size: int = 256
    """windows per update [ODT]"""
    weight_decay: float = 5e-4
    """decay of every parameter [ODT: 1e-4 to 1e-3]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action_units != "bounds":
            raise LegatoError("odt draws actions within their bounds: action_units is bounds")
        if not 1 <= self.reads <= self.context:
            raise LegatoError(f"a policy trained on {self.context} steps reads 1 to {self.context}, not {self.reads}")
        if not 0 < self.edge < 1:
            raise LegatoError(f"edge must lie in (0, 1); {self.edge} was given")
        if not abs(self.entropy) < float("inf"):
            raise LegatoError(f"entropy must be finite; {self.entropy} was given")
        for name in ("multiplier", "multiplier_learning_rate"):
            if getattr(self, name) <= 0:
                raise LegatoError(f"{name} must be positive; {getattr(self, name)} was given")


@dataclass(frozen=True)
class DS4:
    """Decision S4: state-space layers trained as convolutions on whole episodes, acting as a recurrence."""

    core: Literal["s4", "s4d", "s5"] = "s4d"
    """the layers' systems: full (NPLR) or diagonal per channel, or one diagonal system for all channels [DS4: s4]"""
    layers: int = 3
    """state-space blocks [DS4]"""
    channels: int = 64
    """width of the blocks, H [DS4: 64 or 96]"""
    order: int = 96
    """state size of a system, N [DS4]"""
    embedding: int = 128
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
    dropout: float = 0.1
    """share of hidden units left out in training [DS4: 0 to 0.1]"""
    freeze_core: bool = False
    """leave A, B and the step sizes as they began [DS4: on]"""
    core_learning_rate: float = 1e-3
    """Adam step size of A, B and the step sizes, without decay, after the same warm-up"""
    paper_alignment: bool = False
    """inputs (s_t+1, a_t, R_t), targets a_t+1, as in the code that descends from [DS4]: a_0 is then never learnt"""
    returns: bool = True
    """read returns-to-go; without, the same network imitates (a negative control)"""
    history: bool = True
    """carry states and read the previous action; without, the same network is Markov (a negative control)"""
    delayed: bool = False
    """every reward paid at the episode's end; the target then stays as it was asked"""
    gamma: float = 1.0
    """discount of returns-to-go per primitive step"""
    scale: float = 0.0
    """returns-to-go are divided by this [DS4: 1000]; 0: by their root mean square in the data"""
    length: int = 1000
    """primitive steps of an episode per update; of a longer one, a stretch from a random step on, from zero states"""
    batch_size: int = 64
    """episodes per update [DS4]"""
    learning_rate: float = 1e-4
    """AdamW step size [DS4]"""
    warmup: int = 10_000
    """updates over which the step size rises to its value [DS4]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: float = 1e-4
    """AdamW decay of the dense layers; the systems have none [DS4]"""
    clip: float = 0.25
    """largest global norm of a gradient [DS4]"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the dense layers' arithmetic in training; the systems are always float32"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DS4]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        _check_offline(self, "layers", "channels", "order", "embedding", "length")
        _check_returns(self)
        if self.order % 2:
            raise LegatoError(f"order counts conjugate pairs and is even; {self.order} was given")
        if self.paper_alignment and self.length < 2:
            raise LegatoError(f"length must be at least 2 in the paper's alignment; {self.length} was given")
        if self.core_learning_rate <= 0:
            raise LegatoError(f"core_learning_rate must be positive; {self.core_learning_rate} was given")


@dataclass(frozen=True)
class TT:
    """Trajectory Transformer: a model of trajectories as tokens, and a beam search in it for every decision."""

    bins: int = 100
    """tokens per number of an observation, action, reward or value [TT]"""
    edges: Literal["quantile", "uniform"] = "quantile"
    """bins that hold equally many of the data's numbers, or equally wide ones [TT: either]"""
    centres: Literal["middle", "mean"] = "middle"
    """what a token is read back as: the middle of its bin [TT], or the mean of the data in it"""
    ordered: bool = False
    """embeddings alike for neighbouring bins, at first and as they are learnt, instead of independent ones [TT]"""
    window: int = 10
    """steps that a training window holds [TT]"""
    layers: int = 4
    """blocks of the transformer [TT]"""
    heads: int = 4
    """attention heads [TT]"""
    size: int = 128
    """width of the tokens; the blocks' MLPs are four times as wide [TT]"""
    dropout: float = 0.1
    """share left out of tokens, attention weights and block outputs in training [TT]"""
    action_weight: float = 5.0
    """of an action's token in the loss; all others count 1 [TT]"""
    blur: float = 0.0
    """learn a token as a distribution so many bins wide about it, of the same mean; 0: as that bin alone [TT]"""
    returns: bool = True
    """tokens of reward and value, which the search for return needs; without, the same network imitates [TT]"""
    goals: Literal["none", "last", "later"] = "none"
    """put an observation to be reached in front of the window: in training the episode's last [TT], or any after it"""
    gamma: float = 0.99
    """discount of values per primitive step, in the data and in the search [TT]"""
    penalty: float | None = -100.0
    """the reward at a true termination is replaced by this; None leaves it [TT]"""
    search: Literal["return", "likelihood", "mean"] = "return"
    """what a plan is: the best of a search for return, the likeliest one [TT: either], or the mean of each number"""
    context: int = 5
    """steps that the planner reads, the one being written included [TT]"""
    horizon: int = 15
    """primitive steps of a plan [TT: 5 to 20]"""
    beams: int = 128
    """sequences that the search keeps [TT: 32 to 128]"""
    expand: int = 2
    """continuations tried of each sequence, of a search for return [TT]"""
    elite: float = 0.0
    """execute the mean of this share of the plans, the best, of a search for return; 0: the best one alone [TT]"""
    mppi: float = 0.0
    """weigh these by exp(return / (mppi x the standard deviation of the bins of values)), as MPPI does; 0: all alike"""
    action_cdf: float = 0.6
    """the least likely action tokens that together have less than this are not sampled; 0: all may be [TT]"""
    action_k: int = 0
    """only so many of the likeliest action tokens may be sampled; 0: any number [TT: 40 on one dataset]"""
    observation_k: int = 1
    """the same of observations: 1 takes the likeliest [TT]; 0: any number"""
    percentile: float = 0.0
    """judge rewards and values by this share of their distribution, 0 to 1, instead of by their mean (0) [TT: mean]"""
    batch_size: int = 256
    """windows per update [TT]"""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW for all parameters [TT], or Muon for the matrices inside the transformer"""
    learning_rate: float = 6e-4
    """step size [TT]"""
    warmup: int = 4_000
    """updates over which the step size rises to its value [TT: one pass over the data]"""
    anneal_over: int = 0
    """updates over which the step size then falls along a cosine to a tenth; 0: never, -1: the run [TT: 20 passes]"""
    weight_decay: float = 0.1
    """decay of matrices (of Muon, of those it steps in); biases, norms and tables have none [TT]"""
    clip: float = 1.0
    """largest global norm of a gradient [TT]"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the network's arithmetic in training; parameters and optimiser stay float32"""

    def __post_init__(self) -> None:
        _check_offline(self, "window", "layers", "heads", "size", "horizon", "beams", "expand")
        for name, least in (("bins", 2), ("window", 2), ("context", 2), ("action_k", 0), ("observation_k", 0)):
            if getattr(self, name) < least:
                raise LegatoError(f"{name} must be at least {least}; {getattr(self, name)} was given")
        for name in ("action_cdf", "percentile"):
            if not 0 <= getattr(self, name) < 1:
                raise LegatoError(f"{name} must lie in [0, 1); {getattr(self, name)} was given")
        if not 0 <= self.elite <= 1:
            raise LegatoError(f"elite must lie in [0, 1]; {self.elite} was given")
        if not 0 <= self.mppi < float("inf"):
            raise LegatoError(f"mppi must be at least 0 and finite; {self.mppi} was given")
        if self.mppi and not self.elite:
            raise LegatoError("mppi weighs several plans: say of which share of them with elite (1: all)")
        if not 0 < self.gamma <= 1:
            raise LegatoError(f"gamma must lie in (0, 1]; {self.gamma} was given")
        if self.action_weight <= 0:
            raise LegatoError(f"action_weight must be positive; {self.action_weight} was given")
        if not 0 <= self.blur < float("inf"):
            raise LegatoError(f"blur must be at least 0 bins and finite; {self.blur} was given")
        if self.size % self.heads:
            raise LegatoError(f"size {self.size} does not divide among {self.heads} heads")
        if self.context > self.window:
            raise LegatoError(
                f"a planner cannot read {self.context} steps in a model of {self.window}: lower --context"
            )
        if self.search == "return" and not self.returns:
            raise LegatoError(
                "a search for return needs tokens of reward and value: choose --search likelihood or mean"
            )
        if self.goals != "none" and self.search == "return":
            raise LegatoError("a goal is not reached by return: choose --search likelihood or mean")


@dataclass(frozen=True)
class IQL:
    """Implicit Q-learning: the value of the best actions in the data, and a policy that imitates these."""

    expectile: float = 0.7
    """which of the data's actions V is of: 0.5 the average one, towards 1 the best [IQL: 0.9 in AntMaze]"""
    beta: float = 3.0
    """how sharply better actions are preferred, per unit of Q - V; 0 imitates all alike [IQL: 10 in AntMaze]"""
    gamma: float = 0.99
    """discount per primitive step [IQL]"""
    tau: float = 0.005
    """Polyak rate of the target critics, every update [IQL]"""
    reward_scale: float = 1.0
    """rewards are divided by this [IQL]; 0: by a thousandth of the range of the data's returns [IQL: in locomotion]"""
    reward_shift: float = 0.0
    """is added to every reward then; -1 where only arriving is paid, with 1 [IQL: in AntMaze]"""
    hidden: int = 256
    """width of the hidden layers of actor, critics and V [IQL]"""
    layers: int = 2
    """hidden layers of each [IQL]"""
    dropout: float = 0.0
    """share of the actor's hidden units left out in training [IQL: 0.1 in Kitchen and Adroit]"""
    batch_size: int = 256
    """transitions per update [IQL]"""
    learning_rate: float = 3e-4
    """Adam step size of actor, critics and V [IQL]"""
    anneal_over: int = -1
    """updates over which the actor's step size falls along a cosine to zero; 0: never, -1: the run [IQL]"""
    initialisation: Literal["xavier", "orthogonal"] = "xavier"
    """first weights of all layers: Xavier uniform, or orthogonal with a gain of the root of 2 [IQL]"""
    anneal_critics: bool = False
    """let the step size of critics and V fall as well, towards zero, to a twentieth at least [IQL: off]"""

    def __post_init__(self) -> None:
        _check_common(self)
        if self.layers < 1:
            raise LegatoError(f"layers must be at least 1; {self.layers} was given")
        if not 0 < self.expectile < 1:
            raise LegatoError(f"expectile must lie in (0, 1); {self.expectile} was given")
        if not 0 <= self.beta < float("inf"):
            raise LegatoError(f"beta must be at least 0 and finite; {self.beta} was given")
        if not 0 <= self.reward_scale < float("inf"):
            raise LegatoError(f"reward_scale must be positive, or 0 for the data's own; {self.reward_scale} was given")
        if not 0 <= self.dropout < 1:
            raise LegatoError(f"dropout must lie in [0, 1); {self.dropout} was given")


def _check_tuner(config: DS4AC | DS4RW | OnlineDT, *positive: str) -> None:
    for name in ("every", "batch_size", *positive):
        if getattr(config, name) < 1:
            raise LegatoError(f"{name} must be at least 1; {getattr(config, name)} was given")
    own = isinstance(config, OnlineDT)  # which may take both from pre-training
    for name in ("updates", "start_steps", *(() if own and config.weight_decay == -1 else ("weight_decay",))):
        if getattr(config, name) < 0:
            raise LegatoError(f"{name} must be at least 0; {getattr(config, name)} was given")
    if config.clip <= 0:
        raise LegatoError(f"clip must be positive; {config.clip} was given")
    if config.learning_rate <= 0 and not (own and config.learning_rate == 0):
        raise LegatoError(f"learning_rate must be positive; {config.learning_rate} was given")
    if isinstance(config, DS4RW):
        return
    for name in ("gamma", "tau"):
        if not 0 <= getattr(config, name) <= 1:
            raise LegatoError(f"{name} must lie in [0, 1]; {getattr(config, name)} was given")
    if config.critic_learning_rate <= 0:
        raise LegatoError(f"critic_learning_rate must be positive; {config.critic_learning_rate} was given")
    if not 0 <= config.reward_scale < float("inf"):
        raise LegatoError(f"reward_scale must be positive, or 0 for the policy's own; {config.reward_scale} was given")


def _check_average(config: DS4AC | OnlineDT) -> None:
    if not 0 < config.average <= 1:
        raise LegatoError(f"average must lie in (0, 1]; {config.average} was given")


@dataclass(frozen=True)
class DS4AC:
    """Decision S4 fine-tuned by acting: a deterministic actor-critic over stored states, one recurrent step deep."""

    every: int = 10
    """primitive steps between updates [DS4]"""
    updates: int = 4
    """updates then [DS4]"""
    start_steps: int = 5_000
    """primitive steps before the first update [DS4]"""
    critic_steps: int = 50_000
    """primitive steps until the actor is updated as well [DS4]"""
    critic_updates: int = 40
    """updates of the critics alone every so many steps until then [DS4]"""
    critics_per_actor: int = 1
    """steps of the critics in each update of both, before the actor's [DS4: 1]"""
    noise: tuple[float, float, float] = (0.3, 0.1, 0.05)
    """deviation of the actions' noise, in units of their bounds: before the actor is updated, then, and at last"""
    noise_over: int = 50_000
    """primitive steps from the second to the last"""
    variation: float = 0.15
    """an episode is asked for up to this share more or less than the present target [DS4]"""
    ahead: float = 0.1
    """the present target lies by this share above the best evaluation so far, and never below the first [DS4]"""
    relabel: bool = False
    """write episodes into the replay as if they had been asked for what they earned [DS4]"""
    critic_reads_return: bool = True
    """the critics read the return-to-go as well [DS4: either]"""
    freeze_core: bool = True
    """leave A, B and the step sizes alone, so that stored states stay what they are [DS4]"""
    refresh_every: int = 0
    """updates of the actor between renewals of all stored states; 0: never"""
    anchor: float = 0.0
    """how much the squared distance to an anchor's actions counts beside -Q / mean |Q|; 0: -Q alone [DS4]"""
    shortest: float = 0.0
    """every fall halves the length of the tether, 1 / anchor, but leaves at least this share of it"""
    anchor_at: Literal["best", "start"] = "best"
    """the anchor: the policy that evaluated best so far, or always the offline one"""
    gamma: float = 0.99
    """discount per primitive step, of the critics [DS4]"""
    n_step: int = 1
    """primitive steps whose rewards a critic's target adds up before it looks at the critics again [DS4: 1]"""
    smoothing: float = 0.0
    """deviation of noise on the actions of a critic's target, in units of their bounds [DS4: none, TD3: 0.2]"""
    regret: float = 0.0
    """where the world ends an episode, this share of what was still wanted counts as lost to the critics [DS4: 0]"""
    reward_scale: float = 0.0
    """rewards are divided by this for the critics [DS4: 1000]; 0: by a tenth of the policy's unit of returns"""
    logged: int = 0
    """primitive steps of logged episodes, good and bad, that the replay begins with; 0: none [DS4]"""
    hidden: int = 256
    """width of the critics' hidden layers"""
    layers: int = 2
    """hidden layers of the critics"""
    norm: bool = True
    """normalise the critics' hidden layers, so that they do not rise without bound where nothing was seen [DS4: off]"""
    batch_size: int = 64
    """steps per update [DS4: 64 to 100]"""
    tau: float = 0.005
    """Polyak rate of the targets, every update [DS4: either]; 0: copied every `target_every` updates"""
    average: float = 1.0
    """rate at which what is deployed follows the actor, every update; 1: it is the actor [DS4]"""
    target_every: int = 800
    """updates between copies into the targets [DS4: 2000 primitive steps]"""
    learning_rate: float = 1e-5
    """AdamW step size of the actor [DS4]"""
    critic_learning_rate: float = 1e-3
    """AdamW step size of the critics [DS4: 1e-3 or 1e-4]"""
    warmup: int = 100
    """updates over which both rise to their values"""
    weight_decay: float = 1e-3
    """AdamW decay of the critics [DS4]"""
    clip: float = 0.5
    """largest global norm of a gradient [DS4]"""

    def __post_init__(self) -> None:
        _check_tuner(self, "critic_updates", "critics_per_actor", "n_step", "hidden", "layers", "target_every")
        if not 0 <= self.variation < 1:
            raise LegatoError(f"variation must lie in [0, 1); {self.variation} was given")
        _check_average(self)
        if len(self.noise) != 3 or min(self.noise) < 0:
            raise LegatoError(f"noise is three deviations of at least 0; {self.noise} was given")
        if self.shortest > 1:
            raise LegatoError(f"shortest is a share, 1 at most; {self.shortest} was given")
        for name in (
            "ahead",
            "shortest",
            "regret",
            "smoothing",
            "critic_steps",
            "noise_over",
            "refresh_every",
            "anchor",
            "logged",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise LegatoError(f"{name} must be at least 0 and finite; {getattr(self, name)} was given")


@dataclass(frozen=True)
class DS4RW:
    """Decision S4 fine-tuned by imitating its own episodes, whole, the better ones more: slow, and hard to ruin."""

    every: int = 1_000
    """primitive steps between updates"""
    updates: int = 50
    """updates then"""
    start_steps: int = 0
    """primitive steps before the first update"""
    episodes: int = 200
    """whole episodes that the replay keeps, at first the best of the logs [DS4: 2000]"""
    above: float = 0.4
    """an episode counts 1 that earned this many deviations more than their mean, at its highest so far [DS4]"""
    sharpness: float = 1.0
    """how fast that rises with what was earned: exp(sharpness (return - pivot) / |pivot|), 0.01 to 10 [DS4: 1]"""
    noise: float = 0.1
    """deviation of the actions' noise while collecting, in units of their bounds"""
    variation: float = 0.15
    """an episode is asked for up to this share more or less than the present target [DS4]"""
    ahead: float = 0.1
    """the present target lies by this share above the best evaluation so far, and never below the first [DS4]"""
    batch_size: int = 4
    """episodes per update [DS4: 64]"""
    learning_rate: float = 1e-4
    """AdamW step size [DS4]"""
    warmup: int = 100
    """updates over which it rises to its value"""
    weight_decay: float = 1e-4
    """AdamW decay of the dense layers; the systems have none [DS4]"""
    clip: float = 0.25
    """largest global norm of a gradient [DS4]"""

    def __post_init__(self) -> None:
        _check_tuner(self, "episodes")
        for name in ("above", "sharpness", "noise", "ahead"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise LegatoError(f"{name} must be at least 0 and finite; {getattr(self, name)} was given")
        if not 0 <= self.variation < 1:
            raise LegatoError(f"variation must lie in [0, 1); {self.variation} was given")


@dataclass(frozen=True)
class OnlineDT:
    """Online Decision Transformer: collects by asking for much, imitates what that earned; with `td3`, by Q too."""

    every: int = 1_000
    """primitive steps between updates; one rollout [ODT]"""
    updates: int = 300
    """updates then [ODT]"""
    start_steps: int = 0
    """primitive steps before the first update [ODT: none, as the replay begins with logged episodes]"""
    critic_steps: int = 0
    """with `td3`, primitive steps until the transformer is updated as well as the critics"""
    critic_updates: int = 300
    """with `td3`, updates of the critics alone every so many steps until then"""
    n_step: int = 1
    """primitive steps whose rewards a critic's target adds up before it looks at the critics again, or as many as are
    left in its window"""
    episodes: int = 1_000
    """whole episodes that the replay keeps, at first of the logs; the worst of these go first [ODT]"""
    logs: Literal["best", "all"] = "best"
    """which logged episodes these are: the best [ODT], or as many of every return"""
    prompt: float = 2.0
    """while collecting, an episode is asked for so much more than in evaluations, by the target's size [ODT: twice]"""
    ahead: float = 0.0
    """evaluations ask for this share more than the best one so far earned, and never below the first target; 0: always
    for that [ODT]"""
    spread: float = 1.0
    """share of the deviation that actions are drawn with while collecting [ODT: all of it]"""
    average: float = 1.0
    """rate at which what is deployed follows the transformer, every update; 1: it is the transformer [ODT]"""
    td3: float = 0.0
    """weight of -Q / mean |Q| beside the likelihood; 0: likelihood alone [ODT], above 0: a TD3 gradient [ODT+]"""
    gamma: float = 0.99
    """discount per primitive step, of the critics"""
    tau: float = 0.005
    """Polyak rate of the targets, every update"""
    reward_scale: float = 0.0
    """rewards are divided by this for the critics; 0: by a tenth of the policy's unit of returns"""
    hidden: int = 256
    """width of the critics' hidden layers"""
    layers: int = 2
    """hidden layers of the critics"""
    norm: bool = True
    """normalise the critics' hidden layers"""
    batch_size: int = 256
    """windows per update [ODT]"""
    learning_rate: float = 0.0
    """step size of the transformer; 0: that of pre-training [ODT]"""
    critic_learning_rate: float = 1e-3
    """AdamW step size of the critics"""
    warmup: int = 10_000
    """updates over which both rise to their values, those of pre-training counted where its optimiser goes on [ODT]"""
    weight_decay: float = -1.0
    """decay of every parameter; -1: that of pre-training [ODT]"""
    continue_optimiser: bool = field(default=True, metadata={"before": False})
    """go on with the moments and the count of pre-training's optimiser [ODT], instead of with new ones"""
    clip: float = 0.25
    """largest global norm of a gradient [ODT]"""

    def __post_init__(self) -> None:
        _check_tuner(self, "episodes", "critic_updates", "n_step", "hidden", "layers")
        _check_average(self)
        for name in ("critic_steps", "td3", "ahead", "spread"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise LegatoError(f"{name} must be at least 0 and finite; {getattr(self, name)} was given")
        if not abs(self.prompt) < float("inf"):
            raise LegatoError(f"prompt must be finite; {self.prompt} was given")


Online = SAC | TD3 | SRL
Offline = BC | DT | ODT | DS4 | TT | IQL
Config = Online | Offline

ONLINE: dict[str, type[Online]] = {"sac": SAC, "td3": TD3, "srl": SRL}
OFFLINE: dict[str, type[Offline]] = {"bc": BC, "dt": DT, "odt": ODT, "ds4": DS4, "tt": TT, "iql": IQL}
CONFIGS: dict[str, type[Config]] = {**ONLINE, **OFFLINE}

Tuner = DS4AC | DS4RW | OnlineDT

TUNERS: dict[str, type[Tuner]] = {"ds4-ac": DS4AC, "ds4-rw": DS4RW, "odt-online": OnlineDT}
TUNES: dict[str, tuple[str, ...]] = {"ds4": ("ds4-ac", "ds4-rw"), "odt": ("odt-online",)}
"""by which a policy of an algorithm may be fine-tuned, the usual way first"""
