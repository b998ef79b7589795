"""A saved policy, ready to act, with what it may be loaded with: a planner, another search, a critic.

What trains, plays or draws is not imported here: a control loop waits for this module and has its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms.configs import SRL, TT
from legato.errors import LegatoError, unknown
from legato.policy import guard_computation
from legato.training import policy_file
from legato.training.policy_file import LoadedPolicy
from legato.training.run import Run, Which

if TYPE_CHECKING:
    from legato.algorithms.trajectory_transformer import Planning


@guard_computation
def load(
    path: str | Path,
    seed: int | None = None,
    which: Which = "last",
    *,
    critic: str | Path | None = None,
    search: Mapping[str, Any] | None = None,
) -> LoadedPolicy:
    """A saved policy, ready to act, from a run folder (of `seed`, `last` or `best`) or from a policy folder.

    A Trajectory Transformer that searches for return does so by the Q of a `critic`, a run or policy folder of `iql`,
    instead of by its own values: TT(+Q). Of a run it is the same seed's, if it has one, and otherwise the first.
    How it looks for a plan may differ from what it was trained with: `search={"beams": 32, "horizon": 5}`.

    With `search={"planner": "mppi"}` the actor of an SRL run does not write its plans: they are looked for, by MPPI or
    CEM (`cem`), in the model and by the critics of the run's newest checkpoint, or imagined action by action
    (`unrolled`); the other options are those of `planning.shooting.Shooting`.
    """
    loaded = policy_file.load(_policy(path, seed, which))
    if search and "planner" in search:
        loaded = planning(path, loaded, search)
    elif search:
        loaded = searching(loaded, search)
    if critic is None:
        return loaded
    seeds = Run(critic).seeds if (Path(critic) / "config.json").exists() else []
    trained = loaded.card.extra.get("seed", seed)
    same = trained if trained in seeds else seeds[0] if seeds else None
    return searching_by(loaded, policy_file.load(_policy(critic, same, which)))


def planning(path: str | Path, loaded: LoadedPolicy, search: Mapping[str, Any]) -> LoadedPolicy:
    """The actor of an SRL run with a planner over its run's model and critics.

    Raises `LegatoError` for another algorithm, a policy without its run, and options that are none or make no sense.
    """
    from legato.planning.recall import PLANNERS, Imagining
    from legato.planning.shooting import Shooting

    name, options = search["planner"], {k: v for k, v in search.items() if k != "planner"}
    if name not in PLANNERS:
        raise unknown("planner", str(name), PLANNERS)
    if loaded.card.algorithm != "srl":
        raise LegatoError(f"a policy of '{loaded.card.algorithm}' has no model to plan in: train srl")
    if not (Path(path) / "config.json").exists():
        raise LegatoError(f"'{path}' is a policy alone: model and critics to plan with are in its run's checkpoint")
    known = {field.name: field.type for field in fields(Shooting)}
    for option, value in options.items():
        if option not in known or name == "unrolled":
            raise unknown("option of a planner", option, () if name == "unrolled" else known)
        if not isinstance(value, int if known[option] == "int" else (int, float)):
            raise LegatoError(f"{option} of a planner is of type {known[option]}; {value!r} was given")
    how = None
    if name != "unrolled":
        how = Shooting(**{"temperature": 0.0 if name == "cem" else Shooting.temperature, **options})
    run = Run(path)
    learner = policy_file.newest_learner(run, loaded.card.extra["seed"])
    actor = cast(Any, loaded.policy).actor
    places = 0 if cast(SRL, run.config).critic == "one_step" else cast(SRL, run.config).horizon
    policy = Imagining(actor, learner.critic, learner.model, loaded.spec, how, learner.encoder, places)
    policy.check()
    return LoadedPolicy(policy, loaded.card)


def searching(searcher: LoadedPolicy, search: Mapping[str, Any]) -> LoadedPolicy:
    """The Trajectory Transformer with another search: fields of its config that training does not depend on.

    Raises `LegatoError` where nothing is searched, and for what is no field of a search or does not fit the model.
    """
    if not isinstance(searcher.card.config, TT):
        raise LegatoError(f"a policy of '{searcher.card.algorithm}' does not search: it takes no options of a search")
    from legato.algorithms import trajectory_transformer

    for name, value in search.items():
        if name not in trajectory_transformer.SEARCHES:
            raise unknown("option of a search", name, trajectory_transformer.SEARCHES)
        kind = type(getattr(searcher.card.config, name))
        if not isinstance(value, (int, float) if kind is float else kind):
            raise LegatoError(f"{name} of a search is of type {kind.__name__}; {value!r} was given")
    if search.get("search", "return") not in ("return", "likelihood", "mean"):
        raise LegatoError(f"a search is for return, likelihood or mean, not for '{search['search']}'")
    config = replace(searcher.card.config, **search)
    policy = trajectory_transformer.searching(config, cast("Planning", searcher.policy))
    return LoadedPolicy(policy, replace(searcher.card, config=config))


def searching_by(searcher: LoadedPolicy, critic: LoadedPolicy) -> LoadedPolicy:
    """The Trajectory Transformer, searching for return by a critic's Q instead of by its own values: TT(+Q).

    Raises `LegatoError` where one does not search, the other does not judge, or they are of different sizes.
    """
    if not isinstance(searcher.card.config, TT) or (policy := cast("Planning", searcher.policy)).by != "return":
        raise LegatoError(f"a policy of '{searcher.card.algorithm}' searches for no return: it takes no critic")
    module = algorithm_module(critic.card.algorithm)
    if not hasattr(module, "judge"):
        raise LegatoError(f"a policy of '{critic.card.algorithm}' has no Q to search by; train iql on the same data")
    if critic.spec != searcher.spec:
        raise LegatoError(f"the critic judges {critic.spec.describe()}; the policy has {searcher.spec.describe()}")
    judge = module.judge(critic.card.config, critic.policy)
    return LoadedPolicy(replace(policy, judge=judge), searcher.card)


def _policy(path: str | Path, seed: int | None, which: Which) -> Path:
    if not isinstance(path, str | Path):
        raise LegatoError(f"a policy is in a run folder or a policy folder; {path!r} was given")
    path = Path(path)
    return Run(path).policy_path(seed, which) if (path / "config.json").exists() else path
