"""Legato from Python: train, evaluate, compare, collect, load. The commands are these functions, printed."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries, entry
from legato.algorithms.protocol import TrajectorySampler
from legato.data import bounds, formats
from legato.data import facts as data_facts
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories
from legato.envs import Env, World, check_options, describe, make, make_vec, resolve_environment, try_environment
from legato.errors import LegatoError, LegatoWarning
from legato.evaluation import prediction, prompts, sweeps, video
from legato.evaluation.fas import GRID, Reference, family, reference
from legato.evaluation.imitation import Errors
from legato.evaluation.latency import latency
from legato.evaluation.normalised import Levels, levels
from legato.evaluation.prediction import Foretold, Ruler
from legato.evaluation.prompts import Prompts
from legato.evaluation.sweeps import Evaluation
from legato.loading import load
from legato.policy import Policy, RandomPlans, guard_computation
from legato.rollout import Clock, Experience, Rollout, logged, stack
from legato.training import files, held_out, offline, online, policy_file, starting_point
from legato.training import finetune as tuning
from legato.training.policy_file import Card, LoadedPolicy
from legato.training.progress import Progress
from legato.training.run import Run, Which, label, write_text
from legato.training.settings import FinetuneSettings, OfflineSettings, Settings, from_scratch, override, tuning_preset
from legato.training.settings import preset as named_preset

if TYPE_CHECKING:  # brings the algorithms that attend
    from legato.evaluation.attention import Attended


@guard_computation
def train(
    algorithm: str | None = None,
    env: Env | None = None,
    *,
    dataset: str | Path | None = None,
    preset: str = "cpu",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train an algorithm on an environment or on logged episodes, in a new run folder, or `resume` a run.

    `options` override any hyper-parameter or setting of the preset: `train("srl", "Pendulum-v1", horizon=8, seeds=4)`.
    What learns from logs (see `legato list algorithms`) needs a `dataset`; with an `env` it is evaluated on the way.

    `env` is a Gymnasium id, `module:Id` of one that a module registers, or a function or class that makes it;
    `env_options={...}` are arguments of its constructor and `max_episode_steps` is a time limit. The run keeps them,
    a function as `module:qualname`. Module and function are not found by a file alone: who resumes or evaluates the
    run in another process gives them again (`train(resume=run, env=make_env)`).

    A run is resumed to the end that it was given, with the numbers of one never stopped, or to a later one:
    `train(resume=run, steps=20_000)`, or `updates` of what learns from logs. Where its dataset is now, if
    it was moved, `dataset` says; an environment that does not repeat itself from its seed goes on with
    `fresh_episodes`, and then the numbers differ.

    Raises `LegatoError` for anything that does not fit, before the folder is made.
    """
    dataset = _named(dataset)
    if resume is not None:
        if algorithm is not None or out is not None or options.keys() - {"env_options", "steps", "updates"}:
            kept = "a resumed run keeps its algorithm, environment and options"
            raise LegatoError(f"{kept}: give only resume, and steps or updates for a later end")
        stopped = Run(resume)
        stopped.confirm(env, options.get("env_options"))
        if stopped.method is not None:
            raise LegatoError(f"'{resume}' is a fine-tuning: finetune(resume='{resume}')")
        if stopped.algorithm in entries("offline"):
            if fresh_episodes:
                raise LegatoError(f"'{resume}' learns from logs and plays no episodes: leave out fresh_episodes")
            stopped.extend("steps", options.get("steps"))  # to say that these are counted in updates
            return offline.resume(resume, updates=options.get("updates"), quiet=quiet, dataset=dataset)
        if dataset is not None:
            raise LegatoError(f"'{resume}' learns by acting, not from logs: leave out dataset")
        stopped.extend("updates", options.get("updates"))  # to say that these are counted in steps
        return online.resume(resume, steps=options.get("steps"), quiet=quiet, fresh_episodes=fresh_episodes)
    if fresh_episodes:
        raise LegatoError("fresh_episodes is how a run is resumed: give resume too")
    options |= {"env_options": check_options(options["env_options"] or {})} if "env_options" in options else {}
    env = None if env is None else resolve_environment(env)
    if algorithm in entries("offline"):
        if dataset is None:
            raise LegatoError(f"{algorithm} learns from logs: train('{algorithm}', dataset='my_logs.hdf5')")
        config, settings = override(*named_preset(preset, algorithm, dataset), **{"env": env or "", **options})
        return offline.start(algorithm, preset, config, cast(OfflineSettings, settings), out, quiet=quiet)
    if algorithm is None or env is None:
        raise LegatoError("train needs an algorithm and an environment, such as train('srl', 'Pendulum-v1')")
    if dataset is not None:
        raise LegatoError(
            f"{algorithm} learns by acting, not from logs; those that do: {', '.join(entries('offline'))}"
        )
    config, settings = override(*named_preset(preset, algorithm, env), **options)
    return online.start(algorithm, preset, config, cast(Settings, settings), out, quiet=quiet)


@guard_computation
def finetune(
    source: Run | str | Path | None = None,
    env: Env | None = None,
    *,
    method: str | None = None,
    preset: str = "cpu",
    base: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    dataset: str | Path | None = None,
    fresh_episodes: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Let a run's policies go on learning by acting, in a new run folder; or `resume` that.

    `source` is a run of what can be fine-tuned, `env` by default the one of its data. The offline policies
    are not touched: the new run carries a copy of them (`start`), beside its `last` and its `best`, which is never
    worse by its own evaluations. `options` override any hyper-parameter or setting, as in
    `finetune(run, "Hopper-v4", steps=50_000)`. With the name of an algorithm for a source it begins from scratch:
    `finetune("ds4", "Pendulum-v1", target=-150)`, with hyper-parameters of its own that are the preset's, but for those
    in `base`: `base={"channels": 32, "layers": 1}`.
    Some ways to fine-tune read the logs again, which may have moved to another `dataset`. `fresh_episodes` is of
    `train`.
    Raises `LegatoError` for anything that does not fit, before the folder is made or the replay allocated.
    """
    dataset = _named(dataset)
    if resume is not None:
        told = options.keys() - {"env_options", "steps"}
        if source is not None or method is not None or out is not None or base or told:
            kept = "a resumed run keeps its policies, environment and options"
            raise LegatoError(f"{kept}: give only resume, and steps for a later end")
        stopped = Run(resume)
        if stopped.method is None:
            raise LegatoError(f"'{resume}' is no fine-tuning: train(resume='{resume}')")
        stopped.confirm(env, options.get("env_options"))
        steps = options.get("steps")
        return drawn(tuning.resume(resume, steps=steps, quiet=quiet, fresh_episodes=fresh_episodes))
    if fresh_episodes:
        raise LegatoError("fresh_episodes is how a run is resumed: give resume too")
    if source is None:
        raise LegatoError("finetune needs a run with policies from logs: finetune('runs/ds4-...', 'Hopper-v4')")
    scratch = isinstance(source, str | Path) and from_scratch(source)
    before = str(source) if scratch else source if isinstance(source, Run) else Run(source)
    method = starting_point.choose_method(before, method)
    options |= {"env_options": check_options(options["env_options"] or {})} if "env_options" in options else {}
    path, known = str(source), {}
    world = "" if env is None else resolve_environment(env)
    if isinstance(before, Run):
        world, path = world or before.environment or "", before.path
        known = {
            "seed": before.seeds[0],
            "seeds": len(before.seeds),
            **starting_point.inherited_environment(before, world),
        }
    config, settings = override(*tuning_preset(preset, method, world, scratch=scratch), **{**known, **options})
    settings = cast(FinetuneSettings, settings)
    again = {"base": base, "dataset": dataset, "quiet": quiet}
    return drawn(tuning.start(path, method, preset, config, settings, out, **again))


def _named(dataset: Any) -> str | None:
    """The name of a dataset. Raises `LegatoError` for one in memory: a run reads its logs again when it goes on."""
    if dataset is None or isinstance(dataset, str | Path):
        return None if dataset is None else str(dataset)
    advice = "write it to a file first, legato.data.formats.save(data, 'logs.npz')"
    raise LegatoError(f"a dataset is a file, a folder or a Minari id; {type(dataset).__name__} was given: {advice}")


def learning(run: Run | str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a fine-tuning's evaluations, from 0 on, and their mean returns `[seeds, evaluations]`."""
    run = run if isinstance(run, Run) else Run(run)
    path = run.path / "metrics.csv"
    try:
        text = files.read_bytes(path, files.LARGEST).decode()
        rows = [row for row in csv.DictReader(text.splitlines()) if row.get("eval_return")]
        found = [[(int(r["step"]), float(r["eval_return"])) for r in rows if int(r["seed"]) == s] for s in run.seeds]
        steps = {tuple(step for step, _ in of_seed) for of_seed in found}
        if len(steps) > 1 or not np.isfinite([value for of_seed in found for _, value in of_seed]).all():
            raise ValueError("its seeds were not evaluated at the same steps, or to numbers that are not finite")
    except FileNotFoundError:
        raise LegatoError(f"'{run.place}' has no evaluations: its metrics.csv is gone") from None
    except (ValueError, KeyError, TypeError, csv.Error) as problem:
        raise LegatoError(f"'{path}' is not what legato wrote ({problem}); it was changed") from problem
    if not found[0]:
        raise LegatoError(f"'{run.place}' has no evaluations yet")
    return np.array([step for step, _ in found[0]]), np.array([[value for _, value in of_seed] for of_seed in found])


def drawn(run: Run) -> Run:
    """The run, with the figure of its returns beside what it began with."""
    from legato.evaluation.figures import Curve, learning_curves

    steps, returns = learning(run)
    title = f"{run.environment}: learning on by acting"
    curve = Curve(run.label, steps, returns)
    learning_curves([curve], run.path / "figures" / "finetune.png", title=title, level=float(returns[:, 0].mean()))
    return run


@guard_computation
def collect(
    source: Run | str | Path,
    steps: int | None = None,
    out: str | Path | None = None,
    *,
    replay: bool = False,
    which: Which = "last",
    run_seed: int | None = None,
    env: Env | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    every: int | None = None,
    greedy: bool = False,
    random: bool = False,
    environments: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> Trajectories:
    """Play a run's policy, or that of a policy folder, for exactly `steps` primitive steps and keep the episodes.

    The policy of `run_seed` (`last` or `best`) draws its actions unless it is `greedy`; `random` ones are uniform, each
    drawn anew. It decides every `every` steps, by default as in training. `environments` play side by side, and the
    last episode in each is cut: it counts as truncated. Episodes and draws follow from `seed`; training and evaluation
    never meet these episodes. `env`, `env_options` and `max_episode_steps` replace those that the policy was trained
    with (see `train`). What is played with `env_options` does not say of which environment it is, as a file names one
    without.

    With `replay`, nothing is played: the result is the replay buffer of a run's newest checkpoint.

    `out` names a new dataset (see `formats.save`). Raises `LegatoError` for anything that does not fit, before a step
    is made.
    """
    if out is not None:
        formats.free(out)
    path = source.path if isinstance(source, Run) else Path(source)
    if replay:
        played = {"steps": steps is not None, "env": env is not None, "every": every is not None, "greedy": greedy}
        played |= {"env_options": bool(env_options), "max_episode_steps": max_episode_steps is not None}
        played |= {"which": which != "last", "random": random, "environments": environments != 1, "seed": seed != 0}
        if given := [name for name, is_given in played.items() if is_given]:
            raise LegatoError(f"replay exports what the buffer holds and plays nothing: leave out {', '.join(given)}")
        data, asked = online.replayed(Run(path), run_seed), Run(path).world
    else:
        if steps is None:
            raise LegatoError("how many primitive steps? collect needs steps, or replay to export a replay buffer")
        for name, value, least in (("steps", steps, 1), ("environments", environments, 1), ("seed", seed, 0)):
            if value < least:
                raise LegatoError(f"{name} must be at least {least}; {value} was given")
        if greedy and random:
            raise LegatoError("random actions are never greedy: leave out greedy or random")
        loaded, asked = _to_play(path, run_seed, which, env, env_options, max_episode_steps)
        card = loaded.card
        clock = Clock(algorithm_module(card.algorithm).plan_length(card.config) if every is None else every)
        policy = RandomPlans(loaded.policy, card.spec) if random else loaded.policy
        name = f"{'random' if random else label(card.algorithm, card.config)} on {asked.label}"
        world = make_vec(asked, min(environments, steps))
        rollout = Rollout(world, card.spec, clock, [seed], "collect")
        keys = None if greedy else jax.random.key(seed)[None]
        data = _recorded(rollout, stack([policy]), steps, keys, name, quiet)
    if asked.options and data.about.environment is not None:
        data = replace(data, about=replace(data.about, environment=None))
        text = f"logs name an environment without options, and these are of {asked.label}: they name none"
        warnings.warn(LegatoWarning(text), stacklevel=2)
    if out is not None:
        formats.save(data, out)
    return data


def _to_play(
    path: Path,
    run_seed: int | None,
    which: Which,
    env: Env | None,
    options: Mapping[str, Any] | None,
    limit: int | None,
) -> tuple[LoadedPolicy, World]:
    """The policy in a run or policy folder, and the environment to play it in, which it fits."""
    if not (path / "config.json").exists() and (which != "last" or run_seed is not None):
        raise LegatoError(f"'{path}' is no run folder: which and run_seed pick one of a run's policies")
    loaded = load(path, run_seed, which)
    card, spec = loaded.card, loaded.spec
    extra = card.extra
    known = World(extra.get("environment") or "", extra.get("env_options") or {}, extra.get("max_episode_steps"))
    world = _chosen(known, env, options, limit)
    if world is None:
        raise LegatoError(f"'{path}' does not say which environment its policy is for: name it with env")
    _fit(world, spec, path, card.algorithm)
    return loaded, world


def _chosen(known: World, env: Env | None, options: Mapping[str, Any] | None, limit: int | None) -> World | None:
    """The environment that a user asks for, or the `known` one of a file; None where neither names any.

    Options go beside the known ones, unless the environment is another.
    """
    name = known.name if env is None else resolve_environment(env, known.name)
    same = name == known.name
    found = {**(known.options if same else {}), **check_options(options or {})}
    return World(name, found, known.max_episode_steps if same and limit is None else limit) if name else None


def _fit(world: World, spec: Spec, path: Path, user: str) -> None:
    """Refuse an environment that a policy of this spec does not fit."""
    environment = make(world)
    found = describe(environment, world.name, user=user, discrete=spec.choices is not None)
    try_environment(environment, world.name)
    if found != spec:
        raise LegatoError(
            f"'{world.name}' has {found.describe()}; the policy in '{path}' was trained with {spec.describe()}"
        )


def _recorded(
    rollout: Rollout, policies: Policy[Any], steps: int, keys: PRNGKeyArray | None, name: str, quiet: bool
) -> Trajectories:
    """Exactly so many primitive steps, whichever of the rollout's members made them."""
    members = rollout.environments.count
    parts: list[Experience] = []
    try:
        with Progress(name, steps, quiet=quiet) as progress:
            while (left := -(-steps // members) - rollout.time) > 0:
                parts.append(rollout.run(policies, min(left, 100), keys)[0])  # 100: progress is seen to be made
                progress.step(min(rollout.time * members, steps))
    finally:
        rollout.environments.close()
    experience = Experience(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    about = About.of(name, rollout.environments.name, rollout.spec)
    about = replace(about, start=getattr(rollout.environments, "start", 0))  # files count discrete actions as it does
    return logged(experience, about, steps)


@guard_computation
def evaluate(
    run: Run | str | Path,
    *,
    which: Which = "last",
    episodes: int = 10,
    max_return: float | None = None,
    offset: float = 0.0,
    clocks: bool = True,
    sweep: bool = True,
    targets: Sequence[float] | None = None,
    env: Env | World | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    critic: str | Path | None = None,
    search: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Measure a run's policies over the 16 action sequence lengths, random intervals and delays, and time a decision.

    The result is also kept in the run's `evaluation.json`, with figures. FAS needs reference values: known for the
    environments of Patel & Siegelmann (2025), otherwise given as `max_return` (and `offset`), which are kept.
    `clocks=False` leaves random intervals and delays out.

    Policies that read a target return are also asked for `targets`, by default for deciles of their data's returns and
    for their own target, which is what everything else asks for. `sweep=False` measures only that; sweeps of the very
    same policies that were kept before stay. `env` names the environment where the run has none, or another one;
    `env_options` and `max_episode_steps` replace the run's (see `train`).

    With a `critic` or another `search` (see `load`) the result is kept beside the others: `last+q=<the critic's
    folder>`, `last+beams=32`.
    """
    run = run if isinstance(run, Run) else Run(run)
    if episodes < 1:
        raise LegatoError(f"an evaluation needs at least one episode; {episodes} was given")
    if max_return is not None and not max_return > 0:
        raise LegatoError(f"max_return must be positive; {max_return} was given")
    if not run.conditioned and (targets or not sweep):
        left_out = "targets" if targets else "no-sweep (in Python sweep=False)"
        raise LegatoError(f"the policies of '{run.place}' ({run.label}) read no target return: leave out {left_out}")
    _kept(run)  # what could not be added to in the end is refused now
    loaded = [load(run.path, seed, which, critic=critic, search=search) for seed in run.seeds]
    options = [f"{name}={x}" for name, x in (search or {}).items()]
    different = [*(["Q"] if critic is not None else []), *options]
    kept_as = [which, *([f"q={Path(critic).resolve().name}"] if critic is not None else []), *options]
    played = world_of(run, env, env_options, max_episode_steps)
    known = _scale(run, played.label, "+".join(kept_as)) if max_return is None else Reference(max_return, offset)
    policies = stack([player.policy for player in loaded])
    length = algorithm_module(run.algorithm).plan_length(run.config)
    axes: dict[str, tuple[Sequence[int], Callable[[int], Clock]]] = {}
    facts = prompts.facts(loaded[0].policy) if run.conditioned else None
    asked = () if facts is None else prompts.to_ask(facts, targets)
    if facts is not None:
        # What a fine-tuning came to ask for itself needs no warning.
        strange = [t for t in asked if run.method is None or t != float(facts.target)]
        data_facts.warn(strange, *prompts.supported(facts))
    axes["asl"] = (GRID if sweep else (length,), sweeps.asl_clock)
    if clocks and sweep:
        axes["intervals"] = (sweeps.INTERVALS, sweeps.interval_clock)
        axes["delay"] = (sweeps.delays(length), lambda delay: Clock(length, delay))
    found: dict[str, sweeps.Sweep] = {}
    answers = None
    world = make_vec(played, len(loaded) * episodes)
    total = len(asked) + sum(len(x) for x, _ in axes.values())
    with Progress(f"{run.label} in its world", total, quiet=quiet, unit="point") as progress:
        done = len(asked)
        if facts is not None:
            returns = prompts.sweep(policies, world, run.spec, run.seeds, asked, Clock(length), on_point=progress.step)
            answers = Prompts(asked, returns, float(facts.target), prompts.supported(facts))
        for name, (x, clock) in axes.items():
            found[name] = sweeps.sweep(
                policies,
                world,
                run.spec,
                run.seeds,
                x,
                clock,
                on_point=lambda i, done=done: progress.step(done + i),
            )
            done += len(x)
    result = Evaluation(
        label=f"{run.label} (+{', '.join(different)})" if different else run.label,
        environment=played.label,
        which="+".join(kept_as),
        seeds=tuple(run.seeds),
        trained_length=length,
        step_seconds=world.step_seconds,
        reference=known,
        latency=latency(loaded[0], length),
        latency_single=latency(loaded[0], 1),
        prompts=answers,
        levels=_levels(run, played.label),
        steps=_steps([player.card for player in loaded]),
        **found,
    )
    world.close()
    if not sweep:
        result = _with_kept_sweeps(run, result)
    _keep(run, result)
    return result


@guard_computation
def action_errors(run: Run | str | Path, dataset: str | Path, *, which: Which = "last") -> Errors:
    """How far off a run's policies are from the actions in a dataset of episodes that they did not learn from.

    At each step a policy reads what was logged up to it, and its greedy action is held against the logged one; one that
    reads a target return is asked for what the episode earned. No environment is needed. Raises `LegatoError` for data
    of other sizes or of another kind of actions than the policies'.
    """
    run = run if isinstance(run, Run) else Run(run)
    if run.goals:
        raise LegatoError(f"the policies of '{run.place}' are told goals, which logs do not name")
    loaded = [load(run.path, seed, which) for seed in run.seeds]
    spec = run.spec
    data = formats.load(dataset, environment=run.environment or run.place)  # the run knows whether actions are choices
    if spec.choices is not None and not data.discrete:
        data = bounds.as_choices(data, spec.choices, data.about.start)
    policies = stack([player.policy for player in loaded])
    gamma = algorithm_module(run.algorithm).batches(run.config).discount if run.conditioned else 1.0
    found, holding, deviation = held_out.errors(policies, data, spec, conditioned=run.conditioned, gamma=gamma)
    return Errors(
        label=run.label,
        dataset=str(dataset),
        which=which,
        seeds=tuple(run.seeds),
        episodes=len(data),
        steps=data.steps,
        policy=found,
        holding=holding,
        deviation=deviation,
        discrete=data.discrete,
    )


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
) -> Attended:
    """What a transformer's predictions attend to in the steps of a logged episode that end with `step`.

    By default it is the first episode of the run's own dataset, up to its middle, as many steps as the policy reads.
    `figure` shows these `layers` and `heads`, numbered from 1, or all. Raises `LegatoError` for a run of anything else
    than a Trajectory, Decision or Online Decision Transformer, and for an episode, step, context, layer or head that
    there is not.
    """
    from legato.evaluation.attention import attended
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
        data = offline.learnt(run) if dataset is None else offline.read(settings, str(dataset))
    elif dataset is not None:
        source, data = dataset, formats.load(dataset)
    else:
        raise LegatoError(f"'{run.place}' learnt by acting and names no logs: give --dataset")
    found = attended(run.algorithm, run.config, policy, run.spec, data, episode, step, context)
    if figure is not None:
        title = f"{run.label} on {source}: attention"
        heat_maps.attention(found, figure, title=title, layers=layers, heads=heads)
    return found


def world_of(
    run: Run,
    env: Env | World | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> World:
    """The environment to play a run's policies in: what the user names, or where they belong.

    Raises `LegatoError` where nobody names one, and where the policies do not fit it.
    """
    found = env if isinstance(env, World) else _chosen(run.world, env, options, limit)
    if found is None:
        without = ", or measure its predictions of logged actions with evaluate --dataset FILE"
        advice = f"name one with --env{without if isinstance(run.settings, OfflineSettings) else ''}"
        raise LegatoError(f"neither '{run.place}' nor its data names an environment: {advice}")
    if not run.settings.env or found != run.world:  # which was seen to fit before training
        _fit(found, run.spec, run.path, run.algorithm)
    return found


def _levels(run: Run, env: str) -> Levels | None:
    """Of normalised scores; those of the data hold in the environment that they belong to."""
    elsewhere = run.environment is not None and family(run.environment) != family(env)
    return levels(env, None if elsewhere else (run.data or {}).get("reference"))


def _scale(run: Run, label: str, which: str) -> Reference | None:
    """The scale of an environment's returns: known, or as the user gave it when the run was evaluated there before.

    That of the same policies comes before that of others.
    """
    if (known := reference(label)) is not None:
        return known
    kept = sorted(_kept(run).items(), key=lambda entry: entry[0] != which)
    before = [_evaluation(run, name, body) for name, body in kept]
    return next((e.reference for e in before if e.environment == label and e.reference is not None), None)


def _is_current(run: Run, kept: Evaluation, which: Which) -> bool:
    """Are the policies still those that were measured? Without their files nothing else can be measured."""
    try:
        cards = [policy_file.read_card(run.policy_path(seed, which)) for seed in run.seeds]
    except LegatoError:
        return True
    return kept.steps is None or kept.steps == _steps(cards)


def _steps(cards: Sequence[Card]) -> tuple[int, ...] | None:
    """The steps of training behind each policy; None where one does not say."""
    steps = tuple(card.extra.get("step") for card in cards)
    return None if None in steps else steps  # type: ignore[return-value]


def _with_kept_sweeps(run: Run, result: Evaluation) -> Evaluation:
    """The result with the sweeps over the clock that were kept of the very same policies in the same environment."""
    body = _kept(run).get(result.which)
    if body is None or result.steps is None:
        return result
    kept = _evaluation(run, result.which, body)
    same = (kept.steps, kept.environment, kept.seeds) == (result.steps, result.environment, result.seeds)
    return replace(kept, prompts=result.prompts) if same else result


@guard_computation
def predict(
    run: Run | str | Path,
    *,
    dataset: str | None = None,
    which: Which = "last",
    seed: int | None = None,
    episodes: int = 200,
    steps: int = 100,
    samples: int = 200,
    context: int | None = None,
    ensemble: bool = True,
    updates: int = 12_000,
    out: str | Path | None = None,
    film: str | Path | None = None,
    env: Env | None = None,
    quiet: bool = False,
) -> Foretold:
    """How far ahead the model of a Trajectory Transformer run foretells what episodes do from their beginning.

    `samples` trajectories of `steps` steps are sampled from the beginnings of the first `episodes` of a `dataset`, and
    these held against them (see `evaluation.prediction`). It should be one that the run did not learn from; without
    one the episodes are those of the training data. The model reads `context` steps, by default as many as it was made
    for. A probabilistic `ensemble` is fitted to the run's data by so many `updates`, and measured beside it.

    Numbers and figure are kept in `out`, by default the run's folder. `film` shows the first real episode, and what
    each model made of its beginning, in `env` or where the run's policies belong. Raises `LegatoError` for anything
    that does not fit, before anything is sampled.
    """
    run = run if isinstance(run, Run) else Run(run)
    for name, value in (("episodes", episodes), ("steps", steps), ("samples", samples), ("updates", updates)):
        if value < 1:
            raise LegatoError(f"{name} must be at least 1; {value} was given")
    settings = run.settings
    found = entry(run.algorithm)
    if "trajectories" not in found.offers or not isinstance(settings, OfflineSettings):
        able = " or ".join(name for name, other in entries().items() if "trajectories" in other.offers)
        raise LegatoError(f"'{run.place}' ({run.label}) holds no model of trajectories: train one with {able}")
    sampler: TrajectorySampler = found.function("trajectories")(run.config, load(run.path, seed, which).policy)
    drawn_in: World | None = None
    if film is not None:
        film, drawn_in = Path(film), _chosen(run.world, env, None, None)
        video.ready(film, drawn_in)
    learnt = offline.learnt(run) if ensemble or dataset is None else None
    given = learnt if dataset is None else offline.read(settings, dataset)
    assert given is not None
    if given.observations.shape[1] != run.spec.observation_size:
        raise LegatoError(
            f"{given.about.name} has observations of {given.observations.shape[1]} numbers; "
            f"the run was trained on {run.spec.observation_size}"
        )
    real = prediction.references(given, steps, episodes)
    starts, ruler = real[:, 0], Ruler.of(sampler.observed)
    label = found.short_label(run.config)
    label = label if context is None or context == sampler.window else f"{label}, context {context}"
    total = samples + (2 * updates if ensemble else 0)
    with Progress(f"{run.label} foretells", total, quiet=quiet, unit="sample or update") as progress:
        found = {label: prediction.of_model(sampler, starts, samples, steps, context=context, on_samples=progress.step)}
        if ensemble and learnt is not None:
            rival = prediction.rival(
                learnt, run.spec, updates=updates, on_updates=lambda done: progress.step(samples + done)
            )
            found["ensemble"] = prediction.of_ensemble(rival, starts, samples, steps)
    measured = [prediction.measure(name, s, real[:, 1:], ruler) for name, s in found.items()]
    if dataset is not None and learnt is not None:
        measured.append(
            prediction.measure("the data itself", prediction.of_data(learnt, steps, samples), real[:, 1:], ruler)
        )
    result = Foretold(run.environment, tuple(measured), ruler.oracle, len(real), samples, dataset is not None)
    folder = run.path if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "prediction.json", json.dumps(result.to_json(), indent=2) + "\n")
    _draw_prediction(result, folder / "prediction.png")
    if film is not None:
        motions = {"real": real[0], **{name: np.concatenate([starts[:1], s.states[0]]) for name, s in found.items()}}
        video.beside(cast(World, drawn_in), motions, film)
    return result


def _draw_prediction(result: Foretold, path: Path) -> None:
    from legato.evaluation.figures import Curve, prediction_curve

    steps = np.arange(1, result.steps + 1)
    prediction_curve(
        [Curve(p.label, steps, p.likelihood[None]) for p in result.predictions],
        path,
        title=f"{result.environment or 'The data'}: states foretold",
        oracle=result.oracle,
        episodes=result.episodes,
    )


def evaluation_of(
    run: Run | str | Path, which: Which = "last", *, env: Env | World | None = None, quiet: bool = False
) -> Evaluation:
    """A run's evaluation as kept in its folder; measured now when there is none in `env` over all lengths.

    Nor is one kept of policies that have learnt on since: it is measured anew, in the scale that it had.
    """
    run = run if isinstance(run, Run) else Run(run)
    body = _kept(run).get(which)
    if body is None:
        return evaluate(run, which=which, env=env, quiet=quiet)
    kept = _evaluation(run, which, body)
    known = run.world if run.environment else World(kept.environment)  # of files: not named by the user
    asked = env if isinstance(env, World) else _chosen(known, env, None, None)
    if asked is not None and kept.environment == asked.label and kept.asl.x == GRID and _is_current(run, kept, which):
        return kept
    targets = kept.prompts.asked if kept.prompts else None
    return evaluate(run, which=which, env=asked, targets=targets, quiet=quiet)


def compare(
    runs: Sequence[Run | str | Path],
    figure: str | Path | None = None,
    *,
    which: Which = "last",
    env: Env | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    searches: bool = False,
    quiet: bool = False,
) -> list[Evaluation]:
    """The evaluations of several runs on one environment, and the figure of all their curves.

    `env` names the environment where runs have none, or another one; `env_options` and `max_episode_steps` replace
    those of every run (see `train`). With `searches`, those that `evaluate` measured of
    a run follow it. Raises `LegatoError` when the runs are of different environments.
    """
    runs = [run if isinstance(run, Run) else Run(run) for run in runs]
    known = [run.world for run in runs if run.environment]
    usual = known[0] if known else World("")  # of runs that name none
    asked = [_chosen(run.world if run.environment else usual, env, env_options, max_episode_steps) for run in runs]
    _one_world({world.label for world in asked if world is not None})
    found: list[Evaluation] = []
    for run, world in zip(runs, asked, strict=True):
        found.append(evaluation_of(run, which, env=world, quiet=quiet))
        if searches:
            kept = [_evaluation(run, name, body) for name, body in _kept(run).items() if name.startswith(f"{which}+")]
            found += [e for e in kept if e.environment == found[-1].environment and e.asl.x == GRID]
    _one_world({evaluation.environment for evaluation in found})
    if figure is not None:
        draw(found, figure)
    return found


def _one_world(worlds: set[str]) -> None:
    if len(worlds) > 1:
        raise LegatoError(f"runs of different environments cannot be compared: {', '.join(sorted(worlds))}")


def draw(
    evaluations: Sequence[Evaluation], path: str | Path, sweep: Literal["asl", "intervals", "delay"] = "asl"
) -> Path:
    """Return against action sequence length, longest random interval or delay, one line per evaluation that has it."""
    from legato.evaluation.figures import asl_curve, delay_curve, interval_curve

    first = evaluations[0]
    swept = [(e, getattr(e, sweep)) for e in evaluations if getattr(e, sweep) is not None]
    curves = [_curve(e, found, score=sweep == "asl") for e, found in swept]
    told: dict[str, Any] = {"step_seconds": first.step_seconds}
    if sweep == "asl":
        title = f"{first.environment}: what rarer decisions cost"
        return asl_curve(curves, path, title=title, reference=first.reference, **told)
    figure, what = {
        "intervals": (interval_curve, "decisions at random intervals"),
        "delay": (delay_curve, "decisions that come late"),
    }[sweep]
    return figure(curves, path, title=f"{first.environment}: {what}", **told)


def _curve(evaluation: Evaluation, sweep: sweeps.Sweep, score: bool = False) -> Any:
    from legato.evaluation.figures import Curve

    fas = evaluation.fas if score else None
    return Curve(evaluation.label, np.array(sweep.x), sweep.means, evaluation.trained_length, fas)


def _keep(run: Run, result: Evaluation) -> None:
    """Write `evaluation.json` and the figures into the run's folder."""
    from legato.evaluation.figures import Curve, prompt_curve

    body = {**_kept(run), result.which: result.to_json()}
    write_text(run.path / "evaluation.json", json.dumps(body, indent=1) + "\n")
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    if len(result.asl.x) > 1:
        draw([result], folder / f"asl-{result.which}.png")
    for sweep in ("intervals", "delay"):
        if getattr(result, sweep) is not None:
            draw([result], folder / f"{sweep}-{result.which}.png", sweep)
    if (found := result.prompts) is not None and len(found.asked) > 1:
        prompt_curve(
            [Curve(result.label, np.array(found.asked), found.means)],
            folder / f"prompts-{result.which}.png",
            title=f"{result.environment}: the return asked for and achieved",
            data=found.data,
            target=found.target,
        )


def _kept(run: Run) -> dict[str, Any]:
    path = run.path / "evaluation.json"
    try:
        return files.read_object(path)
    except FileNotFoundError:
        return {}
    except files.Unfit as problem:
        raise LegatoError(f"'{path}' cannot be read ({problem}); move it away to evaluate anew") from problem


def _evaluation(run: Run, name: str, body: Any) -> Evaluation:
    found = Evaluation.from_json(body, f"'{name}' in '{run.path / 'evaluation.json'}'")
    if found.which != name:  # figures are named by it
        raise LegatoError(
            f"'{name}' in '{run.path / 'evaluation.json'}' calls itself '{found.which}'; move it away to evaluate anew"
        )
    return found
