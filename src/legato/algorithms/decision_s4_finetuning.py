"""Decision S4 fine-tuned by acting (Bar-David et al. 2023, arXiv 2306.05167): a deterministic actor-critic over states.

    a'   = X'(s', a, R', h')                       one step of the recurrence, from the stored state h'
    y    = r + m gamma min_i C'_i(s', a', R')      m: 0 where the world ended the episode; s' may be some steps later
           - regret (1 - m) max(R', 0)             what was still wanted there
    L_C  = MSE(C_1(s, a, R), y) + MSE(C_2(s, a, R), y)
    L_X  = -mean min_i C_i(s, X(s, a_prev, R, h), R)        / mean |C| + anchor MSE(X, the best so far), with an anchor

h is a number, not a function of the weights: the gradient reaches through this one step only. A, B and the step sizes
stay as they are by default, as a stored state is otherwise soon another than the actor would be in. The critics learn
first, alone: an actor that follows critics which know nothing forgets what it knew. Two critics where the paper has
one: the smaller of the two is not the one that happens to be too high (Fujimoto et al. 2018, arXiv 1802.09477).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms.configs import DS4 as Base
from legato.algorithms.configs import DS4AC as Config
from legato.algorithms.decision_s4 import Network, Recurrent, recurrent
from legato.algorithms.tuning import Phase, above
from legato.data import histories as ring
from legato.data import trajectories as logs
from legato.data.facts import Facts
from legato.data.histories import Episode, Histories, Moment
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, optax, polyak, warmed
from legato.nn.ssm import groups
from legato.policy import Noisy

Metrics = dict[str, Float[Array, ""]]
SIDES = np.array([-1.0, 1.0])
SMALLER = "train the policy with --core s5 or a smaller --order"


class Learner(eqx.Module):
    """Everything the fine-tuning carries."""

    actor: Network
    target_actor: Network
    critic: TwinCritic
    target_critic: TwinCritic
    anchor: Network
    average: Network
    """what is evaluated and kept: a moving average of the actor"""
    trust: Float[Array, ""]
    """1, halved whenever the actor had to be taken back: the tether is as much tighter"""
    facts: Facts
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    base: Base = eqx.field(static=True)


def check(config: Config, base: Base, spec: Spec) -> None:
    """Raises `LegatoError` for a policy that cannot be fine-tuned."""
    if spec.choices is not None:
        raise LegatoError("an actor-critic of deterministic actions needs actions that are numbers, not choices")
    if not base.history:
        raise LegatoError("a policy without history has no states to learn from: train one with --history")
    if config.relabel and base.delayed:
        raise LegatoError("a delayed return is not relabelled: leave --relabel out")
    if config.relabel and config.regret:
        raise LegatoError("relabelled episodes leave nothing that was still wanted: give --regret 0 with --relabel")


def phase(config: Config, step: int) -> Phase:
    """What is done after so many primitive steps."""
    first, then, last = config.noise
    if step < config.critic_steps:
        return Phase(config.critic_updates if step >= config.start_steps else 0, False, first)
    share = min(1.0, (step - config.critic_steps) / max(config.noise_over, 1))
    return Phase(config.updates if step >= config.start_steps else 0, True, then + share * (last - then))


def init(config: Config, base: Base, policy: Recurrent, key: PRNGKeyArray) -> Learner:
    """A learner that acts as `policy` does."""
    spec, actor = policy.facts.spec, policy.network
    reads = spec.observation_size + config.critic_reads_return
    critic = TwinCritic(reads, spec.action_size, [config.hidden] * config.layers, norm=config.norm, key=key)
    optimisers = _optimisers(config)
    trained = {"actor": actor, "critic": critic}
    return Learner(
        actor=actor,
        target_actor=jax.tree.map(jnp.copy, actor),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        anchor=jax.tree.map(jnp.copy, actor),
        average=jax.tree.map(jnp.copy, actor),
        trust=jnp.ones(()),
        facts=policy.facts,
        optimisers={name: optimisers[name].init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
        base=base,
    )


def _optimisers(config: Config) -> dict[str, optax.GradientTransformation]:
    rate = warmed(config.learning_rate, config.warmup)
    moved = optax.adam(rate)
    frozen = optax.set_to_zero() if config.freeze_core else moved
    clip = optax.clip_by_global_norm(config.clip)
    critic = optax.adamw(warmed(config.critic_learning_rate, config.warmup), weight_decay=config.weight_decay)
    return {
        "actor": optax.chain(clip, optax.multi_transform({"core": frozen, "readout": moved, "rest": moved}, groups)),
        "critic": optax.chain(clip, critic),
    }


# --- the replay ---


def state_size(base: Base, spec: Spec) -> int:
    """Numbers of all states of a policy."""
    start = jax.eval_shape(lambda key: Network(base, spec, key=key).start(), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(start))


def size(config: Config, base: Base, spec: Spec, capacity: int, longest: int) -> tuple[int, int]:
    """The rows of the replay, and how many numbers it keeps of each."""
    return capacity, ring.width(spec, state_size(base, spec))


def memory(config: Config, base: Base, spec: Spec, capacity: int, longest: int) -> Histories:
    """An empty replay."""
    return ring.create(spec, state_size(base, spec), capacity)


def begins_with_logs(config: Config) -> bool:
    """Does the replay begin with logged episodes?"""
    return config.logged > 0


def logged(config: Config, data: Trajectories) -> Int[np.ndarray, " episodes"]:
    """Which logged episodes the replay begins with, in the order in which they go in: the best last.

    Half of their steps are of the best; the others of all returns, evenly: the best alone would never show the critics
    what an episode looks like that goes wrong.
    """
    order = np.argsort(-logs.returns(data), kind="stable")
    best = order[np.cumsum(data.lengths[order]) <= config.logged / 2]
    others, left = order[len(best) :], config.logged - data.lengths[best].sum()
    share = min(1.0, left / max(data.lengths[others].sum(), 1))
    spread = others[np.diff(np.ceil(np.arange(len(others) + 1) * share)) > 0]
    return np.concatenate([best, spread[np.cumsum(data.lengths[spread]) <= left]])[::-1]


def remember(config: Config, learner: Learner, histories: Histories, episode: Episode) -> tuple[Histories, Metrics]:
    """Put an episode into the replay, with the states that today's actor has on its way through it.

    The states are those of the returns that are kept with them: what was asked for or, with `relabel`, what was
    earned. The metric is the largest difference between what the head gives as a recurrence and as a convolution.
    """
    base, facts = learner.base, learner.facts
    ret = episode.returns_to_go(base.gamma) if config.relabel else episode.wanted(base.gamma)
    ret = jnp.broadcast_to(episode.asked, ret.shape) if base.delayed else ret
    action = facts.unit(episode.actions)
    previous = jnp.where(episode.row[:, None] > 0, jnp.roll(action, 1, axis=0), 0)
    last = episode.row == episode.steps - 1
    given = facts.normaliser(episode.observations), previous, facts.ask(ret)
    states, read = walk(learner.actor, given)
    real = episode.row < episode.steps
    moment = Moment(
        episode.observations,
        previous,
        action,
        jnp.where(real, episode.rewards, 0),
        ret,
        jnp.where(last & episode.terminated, 0.0, 1.0),
        real.astype(jnp.float32),
        states,
    )
    gap = jnp.max(jnp.abs(learner.actor(*given) - read @ learner.actor.out), axis=-1)
    gap = jnp.max(jnp.where(real, gap, 0))
    return ring.add(histories, ring.pack(moment), jnp.where(episode.steps > 0, episode.steps + 1, 0)), {"gap": gap}


def walk(network: Network, given: tuple[Array, Array, Array]) -> tuple[Float[Array, "rows state"], Array]:
    """The states before each step of an episode, `[rows, state]`, and what the head reads at it."""
    entry, discrete = network.entry(), network.discrete()

    def step(states: Any, at: tuple[Array, Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        after, read = network.step(entry, discrete, states, *at)
        return after, (ravel_pytree(states)[0], read)

    return jax.lax.scan(step, network.start(), given)[1]


def refreshed(learner: Learner, histories: Histories) -> Histories:
    """The replay with all its states computed anew by today's actor.

    Of the oldest episode, whose beginning may be overwritten, the first state that is left stays as it was.
    """
    network, facts = learner.actor, learner.facts
    entry, discrete = network.entry(), network.discrete()
    begin, unravel = ravel_pytree(network.start())
    oldest = jnp.where(histories.added > histories.capacity, histories.added % histories.capacity, 0)

    def turn(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, state, begins = carry
        at = (oldest + i) % histories.capacity
        row = jax.lax.dynamic_index_in_dim(rows, at, keepdims=False)
        moment = ring.unpack(row, histories.spec)
        state = jnp.where(i == 0, moment.state, jnp.where(begins, begin, state))
        given = facts.normaliser(moment.observation), moment.previous, facts.ask(moment.ret)
        after, _ = network.step(entry, discrete, unravel(state), *given)
        rows = jax.lax.dynamic_update_index_in_dim(rows, row.at[-state.size :].set(state), at, 0)
        return rows, ravel_pytree(after)[0], moment.valid == 0

    rows, *_ = jax.lax.fori_loop(0, histories.size, turn, (histories.rows, begin, jnp.zeros((), bool)))
    return Histories(rows, histories.added, histories.spec)


# --- learning ---


def acted(network: Network, learner: Learner, moment: Moment) -> Float[Array, "batch act"]:
    """X(s, a_prev, R, h): one step of the recurrence from the stored states; actions in units of their bounds."""
    _, unravel = ravel_pytree(network.start())
    states, facts = jax.vmap(unravel)(jax.lax.stop_gradient(moment.state)), learner.facts
    given = facts.normaliser(moment.observation), moment.previous, facts.ask(moment.ret)
    out = network.respond(states, *given)
    return facts.limit(facts.squash(out) if learner.base.squash else out)


def judged(critic: TwinCritic, config: Config, facts: Facts, moment: Moment, action: Array) -> tuple[Array, Array]:
    """C_1 and C_2 of (s, a, R)."""
    read = facts.normaliser(moment.observation)
    if config.critic_reads_return:
        read = jnp.concatenate([read, facts.ask(moment.ret)[..., None]], axis=-1)
    return critic(read, action)


def critic_loss(
    critic: TwinCritic,
    learner: Learner,
    config: Config,
    now: Moment,
    after: Moment,
    discount: Float[Array, " batch"],
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_C and the mean C_1; `discount` lies between `now` and `after`, `noise` is on the actions after."""
    facts = learner.facts
    unit = config.reward_scale or facts.scale / 10
    a_next = learner.facts.limit(acted(learner.target_actor, learner, after) + noise)
    c_next = jnp.minimum(*judged(learner.target_critic, config, facts, after, a_next))
    lost = config.regret * (1 - now.continues) * jnp.maximum(after.ret, 0)
    y = jax.lax.stop_gradient((now.reward - lost) / unit + now.continues * discount * c_next)
    c_1, c_2 = judged(critic, config, facts, now, now.action)
    return _mean((c_1 - y) ** 2 + (c_2 - y) ** 2, now), _mean(c_1, now)


def actor_loss(actor: Network, learner: Learner, config: Config, now: Moment) -> tuple[Float[Array, ""], Array]:
    """L_X, and the mean squared distance to the anchor's actions."""
    if config.freeze_core:  # here, so that it costs nothing and does not count when gradients are clipped
        actor = jax.tree.map(lambda x, group: jax.lax.stop_gradient(x) if group == "core" else x, actor, groups(actor))
    action = acted(actor, learner, now)
    c = jnp.minimum(*judged(learner.critic, config, learner.facts, now, action))
    apart = _mean(jnp.mean((action - jax.lax.stop_gradient(acted(learner.anchor, learner, now))) ** 2, axis=-1), now)
    if not config.anchor:
        return -_mean(c, now), apart
    size = jax.lax.stop_gradient(_mean(jnp.abs(c), now))
    return -_mean(c, now) / (size + 1e-6) + config.anchor / learner.trust * apart, apart


def _mean(values: Float[Array, " batch"], moment: Moment) -> Float[Array, ""]:
    """Over the steps among the rows."""
    return jnp.sum(values * moment.valid) / jnp.maximum(moment.valid.sum(), 1)


def update(
    config: Config, learner: Learner, histories: Histories, key: PRNGKeyArray, joint: bool
) -> tuple[Learner, Metrics]:
    """One gradient step of the critics or, where `joint`, as many as are to come before one of the actor, and that."""

    def step(learner: Learner, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
        return critic_step(config, learner, histories, key)

    k_critic, k_actor = jax.random.split(key)
    if not joint:
        learner, metrics = step(learner, k_critic)
        return learner, {**metrics, "moved": jnp.zeros(())}
    learner, metrics = jax.lax.scan(step, learner, jax.random.split(k_critic, config.critics_per_actor))
    learner, moved = actor_step(config, learner, histories, k_actor)
    return learner, {**jax.tree.map(jnp.mean, metrics), "moved": moved}


def critic_step(config: Config, learner: Learner, histories: Histories, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of the critics, and one of their targets towards them."""
    k_sample, k_noise = jax.random.split(key)
    now, after, discount = ring.sample(histories, k_sample, config.batch_size, config.n_step, config.gamma)
    noise = jnp.clip(config.smoothing * jax.random.normal(k_noise, now.action.shape), *(2.5 * config.smoothing * SIDES))
    (loss, c), g = jax.value_and_grad(critic_loss, has_aux=True)(
        learner.critic, learner, config, now, after, discount, noise
    )
    critic, state = descend(_optimisers(config)["critic"], learner.critic, g, learner.optimisers["critic"])
    updates = learner.updates + 1
    target = polyak(learner.target_critic, critic, _rate(config, updates))
    optimisers = {**learner.optimisers, "critic": state}
    learner = eqx.tree_at(
        lambda whole: (whole.critic, whole.target_critic, whole.optimisers, whole.updates),
        learner,
        (critic, target, optimisers, updates),
    )
    return learner, {"critic_loss": loss, "value": c}


def actor_step(config: Config, learner: Learner, histories: Histories, key: PRNGKeyArray) -> tuple[Learner, Array]:
    """One gradient step of the actor, and one of its target and of what is deployed; the distance to the anchor."""
    now, *_ = ring.sample(histories, key, config.batch_size)
    (_, apart), g = jax.value_and_grad(actor_loss, has_aux=True)(learner.actor, learner, config, now)
    actor, state = descend(_optimisers(config)["actor"], learner.actor, g, learner.optimisers["actor"])
    optimisers = {**learner.optimisers, "actor": state}
    target = polyak(learner.target_actor, actor, _rate(config, learner.updates, config.critics_per_actor))
    average = polyak(learner.average, actor, config.average)
    learner = eqx.tree_at(
        lambda whole: (whole.actor, whole.target_actor, whole.average, whole.optimisers),
        learner,
        (actor, target, average, optimisers),
    )
    return learner, apart


def _rate(config: Config, updates: Int[Array, ""], latest: int = 1) -> Float[Array, ""] | float:
    """The share of the way that targets go with the latest updates."""
    if config.tau:
        return config.tau
    return jnp.where(updates // config.target_every > (updates - latest) // config.target_every, 1.0, 0.0)


# --- acting ---


def policy(learner: Learner, target: Float[Array, ""]) -> Recurrent:
    """The deployable part: a policy of `decision_s4` that asks for `target` where nobody says what to ask for."""
    facts = eqx.tree_at(lambda facts: facts.target, learner.facts, target)
    return recurrent(learner.base, learner.average, facts)


def deployed(learner: Learner) -> Network:
    """What `policy` acts by."""
    return learner.average


def explorer(learner: Learner, target: Float[Array, ""], noise: Float[Array, ""]) -> Noisy[Any]:
    """What collects."""
    facts = eqx.tree_at(lambda facts: facts.target, learner.facts, target)
    return Noisy(recurrent(learner.base, learner.actor, facts), noise, learner.facts.spec)


def improved(config: Config, learner: Learner, better: Bool[Array, ""]) -> Learner:
    """The learner after an evaluation that was `better` than all before: what is good holds from now on."""
    trust = jnp.where(better, jnp.minimum(1.0, 2 * learner.trust), learner.trust)
    learner = eqx.tree_at(lambda whole: whole.trust, learner, trust)
    if config.anchor_at == "start":
        return learner
    moved = jax.tree.map(lambda new, old: jnp.where(better, new, old), learner.average, learner.anchor)
    return eqx.tree_at(lambda whole: whole.anchor, learner, moved)


def taken_back(config: Config, learner: Learner, actor: Network) -> Learner:
    """The learner with an actor that it had before, at rest, and on a tighter tether."""
    copies = (actor, *(jax.tree.map(jnp.copy, actor) for _ in range(2)))
    rest = {**learner.optimisers, "actor": jax.tree.map(jnp.zeros_like, learner.optimisers["actor"])}
    return eqx.tree_at(
        lambda whole: (whole.actor, whole.target_actor, whole.average, whole.optimisers, whole.trust),
        learner,
        (*copies, rest, jnp.maximum(learner.trust / 2, config.shortest)),
    )


def targets(
    config: Config,
    first: Float[np.ndarray, " seeds"],
    best: Float[np.ndarray, " seeds"],
    trust: Float[np.ndarray, " seeds"],
) -> tuple[np.ndarray, np.ndarray]:
    """The returns to ask for in evaluations and while collecting, from those at first and the best evaluations.

    `trust` falls from 1 with every fall.
    """
    ask = above(config, first, best, trust)
    return ask, ask


# --- checkpoints ---


def saved(histories: Histories) -> dict[str, np.ndarray]:
    """The filled part of the replays, of all seeds."""
    filled = int(np.max(np.minimum(histories.added, histories.rows.shape[1])))
    return {"rows": np.array(histories.rows[:, :filled]), "added": np.array(histories.added)}


def restored(histories: Histories, state: dict[str, np.ndarray]) -> Histories:
    rows = histories.rows.at[:, : state["rows"].shape[1]].set(state["rows"])
    return Histories(rows, jnp.asarray(state["added"]), histories.spec)
