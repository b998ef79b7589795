"""The Trajectory Transformer: its loss, what decays, what it remembers, and that it plans for what it was asked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import untrained_on_logs

import legato
from legato.algorithms import algorithm as algorithm_module
from legato.algorithms.iql import iql
from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.data.spec import Spec
from legato.data.tokens import Encoded, Windows
from legato.data.trajectories import About, Trajectories, trajectories
from legato.errors import LegatoError
from legato.nn import optimisation
from legato.policy import Step
from legato.training import logged_data, offline
from legato.training.settings import OfflineSettings, preset

SPEC = Spec(2, (-1.0,), (1.0,))
TINY = TT(
    bins=6, window=4, layers=1, heads=2, size=16, dropout=0.0, context=3, horizon=2, beams=4, batch_size=8, warmup=5
)


def bandit(episodes: int = 60, seed: int = 0) -> Trajectories:
    """Episodes of four steps; the reward is the action's sign times that of the first observed number."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(4 * episodes, 2)).astype(np.float32)
    a = rng.uniform(-1, 1, (4 * episodes, 1)).astype(np.float32)
    ends = np.arange(4 * episodes) % 4 == 3
    about = About("bandit", low=SPEC.low, high=SPEC.high)
    return trajectories(s, a, np.sign(a[:, 0] * s[:, 0]), ends, np.zeros_like(ends), about=about)


@cache
def prepared(config: TT = TINY) -> tuple[tt.TokenStatistics, Encoded]:
    """The bins of the data, and the data as tokens."""
    return tt.prepare(config, SPEC, bandit(), None, "")


@cache
def learner(config: TT = TINY) -> tt.Learner:
    return jax.jit(tt.init, static_argnums=(0, 1))(config, SPEC, jax.random.key(0), prepared(config)[0])


observe = jax.jit(lambda policy, state, step: policy.observe(state, step))
decide = jax.jit(lambda policy, state, key, length: policy.decide(state, key, length)[0], static_argnums=3)
predict = jax.jit(lambda network, tokens: jax.nn.log_softmax(network(tokens)))


def begun(policy: tt.Planning) -> tt.Memory:
    """What a policy remembers of its first observation."""
    return observe(policy, policy.init_state(()), shown([0.1, 0.2], first=True))


def shown(observation: list[float], action: float = 0.0, reward: float = 0.0, first: bool = False) -> Step:
    numbers = (jnp.asarray(x, jnp.float32) for x in (observation, reward, [action]))
    return Step(*numbers, jnp.asarray(first))


def test_the_loss_is_a_weighted_mean_over_what_is_to_be_learnt() -> None:
    """Actions count five times; steps that are not known, and the first token, which nothing predicts, do not count."""
    network = learner().network
    rng = np.random.default_rng(0)
    batch = Windows(
        jnp.asarray(rng.integers(0, 7, (3, 4, 5))),
        jnp.asarray([[True] * 4, [True, True, False, False], [True] * 3 + [False]]),
        jnp.zeros((3, 2), int),
    )
    value, metrics = jax.jit(tt.loss)(network, batch)
    tokens = np.asarray(batch.tokens).reshape(3, 20)
    p = np.asarray(predict(network, tokens[:, :-1]))
    plain, weighted = [], []
    for row in range(3):
        for place in range(1, 20):
            if batch.known[row, place // 5]:
                error = -p[row, place - 1, tokens[row, place]]
                plain.append(error)
                weighted.append(error * (5.0 if place % 5 == 2 else 1.0))
    assert float(value) == pytest.approx(np.mean(weighted), rel=1e-5)
    assert float(metrics["cross_entropy"]) == pytest.approx(np.mean(plain), rel=1e-5)


def test_blurred_tokens_are_learnt_as_distributions_of_the_same_mean() -> None:
    """Normal where bins are alike; beside bounds that many numbers lie at, only to where the mean allows."""
    even, crowded = np.linspace(0, 1, 30), np.concatenate([np.full(10, -1.0), np.linspace(-0.9, 1, 20)])
    centres = np.stack([even, crowded, np.exp(np.linspace(0, 5, 30))]).astype(np.float32)
    found = np.asarray(jax.jit(lambda c: tt.smooth_labels(c, 1.5))(centres))
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.einsum("cij,cj->ci", found[:, :30, :30], centres), centres, rtol=1e-4, atol=1e-5)
    weights = np.exp(-0.5 * ((np.arange(30)[:, None] - np.arange(30)) / 1.5) ** 2)
    normal = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0, 12:18, :30], normal[12:18], atol=1e-5)
    assert found[1, 9, :10].sum() == pytest.approx(1) and found[1, 9, 8] > 0.1  # all at the bound
    assert (found[2, 15] > 0.05).sum() > 2
    for stop in (found[:, 30], found[:, :, 30]):
        np.testing.assert_array_equal(stop, np.tile(np.eye(31)[30], (3, 1)))
    blurred = jax.jit(lambda c: (tt.smooth_labels(c, 1e-3), tt.smooth_labels(c, 1.5, choice=1)))
    exact, chosen = map(np.asarray, blurred(centres))
    np.testing.assert_allclose(exact[0], np.eye(31), atol=1e-6)
    np.testing.assert_array_equal(chosen[1], np.eye(31))
    np.testing.assert_array_equal(chosen[[0, 2]], found[[0, 2]])


def test_the_loss_is_to_the_targets() -> None:
    made = learner(replace(TINY, label_smoothing_bins=1.5))
    assert made.targets is not None and learner().targets is None
    tokens = np.random.default_rng(0).integers(0, 7, (3, 4, 5))
    batch = Windows(jnp.asarray(tokens), jnp.ones((3, 4), bool), jnp.zeros((3, 2), int))
    flat = tokens.reshape(3, 20)
    p = np.asarray(predict(made.network, flat[:, :-1]))
    value, _ = jax.jit(lambda n, b, t: tt.loss(n, b, 1.0, t))(made.network, batch, made.targets)
    target = np.asarray(made.targets)[np.arange(1, 20) % 5, flat[:, 1:]]
    assert float(value) == pytest.approx(-(target * p).sum(-1).mean(), rel=1e-5)


def test_plans_vote_on_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the weight on 0 and half on 2 is not a 1."""
    spec = Spec.discrete(2, 3)
    rng = np.random.default_rng(0)
    about = About("choices", low=spec.low, high=spec.high, choices=3)
    ends = np.arange(80) % 8 == 7
    data = trajectories(
        rng.normal(size=(80, 2)).astype(np.float32), rng.integers(0, 3, 80), rng.normal(size=80), ends, ~ends & False,
        about=about,
    )  # fmt: skip
    statistics, _ = tt.prepare(TINY, spec, data, None, "")
    made = jax.jit(tt.init, static_argnums=(0, 1))(TINY, spec, jax.random.key(0), statistics)
    for config in (replace(TINY, elite_fraction=1.0, beams=3), replace(TINY, search="mean")):
        policy = tt.policy(config, made)
        state = begun(policy)
        assert float(decide(policy, state, None, 1)[0, 0]) in (0, 1, 2)
    policy = tt.policy(replace(TINY, elite_fraction=1.0, beams=3), made)

    @jax.jit
    def voted(tokens: Any) -> Any:
        monkeypatch.setattr(tt.Planning, "plans", lambda *_: tt.Plans(tokens, jnp.zeros(3)))
        return policy.decide(state, None, 2)[0]

    for chosen, most in (([0, 2, 2], 2), ([0, 0, 2], 0), ([1, 2, 1], 1)):
        tokens = np.zeros((3, 2, 5), np.int32)
        tokens[:, :, 2] = np.array(chosen)[:, None]
        np.testing.assert_array_equal(voted(tokens), [[most], [most]])


def test_only_matrices_decay() -> None:
    network = learner().network
    decays = {jax.tree_util.keystr(path): on for path, on in jax.tree_util.tree_leaves_with_path(tt.matrices(network))}
    assert {name.rpartition(".")[2] for name, on in decays.items() if on} == {"weight", "heads"}
    assert all(on for name, on in decays.items() if name.endswith(".weight"))
    assert not any(decays[name] for name in decays if name in (".table.weights", ".positions") or ".bias" in name)


def test_the_step_size_rises_and_falls_to_a_tenth() -> None:
    config = replace(TINY, learning_rate=2.0, warmup=10, anneal_over=50)
    found = jax.jit(jax.vmap(partial(tt.step_size, config)))(np.array([0, 4, 9, 10, 30, 49, 50, 90]))
    expected = [0.2, 1.0, 2.0, 2.0, 1.0, 0.2, 0.2, 0.2]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert float(tt.step_size(replace(config, anneal_over=0), jnp.asarray(90))) == 2.0


encode = jax.jit(lambda bins, row: bins.encode(row))


def test_memory_is_the_last_steps_and_counts_what_is_foreign() -> None:
    policy = tt.policy(TINY, learner())
    bins = policy.statistics.discretiser
    state = begun(policy)
    assert int(state.count) == 0 and not np.asarray(state.past).any()
    rows = []
    for i in range(4):
        observation, action, reward = [0.3 * i, -0.2 * i], 0.4 * i - 0.9, float(i % 2)
        rows.append([*np.asarray(state.newest), *encode(bins, np.float32([0, 0, action, reward, 0]))[2:4], 5])
        state = observe(policy, state, shown(observation, action, reward))
    assert int(state.count) == 2 and int(state.time) == 4 and int(state.foreign) == 0
    assert policy.warning(state) is None
    np.testing.assert_array_equal(state.past, rows[-2:])
    state = observe(policy, state, shown([1e6, -1e6]))
    assert int(state.foreign) == 2
    assert "outside the policy's data" in (policy.warning(state) or "")
    assert np.isfinite(decide(policy, state, None, 1)).all()


def test_a_plan_is_as_long_as_asked_and_begins_the_same() -> None:
    policy = tt.policy(TINY, learner())
    state = begun(policy)
    long = np.asarray(decide(policy, state, None, 5))
    np.testing.assert_array_equal(decide(policy, state, None, 1), long[:1])
    np.testing.assert_array_equal(long[2:], np.tile(long[1], (3, 1)))  # the horizon is 2: the last one is held
    assert (np.abs(long) <= 1).all()


WIDE = replace(TINY, beams=16, expand=1, action_cdf=0.0)


def done(policy: tt.Planning, plans: tt.Plans, monkeypatch: pytest.MonkeyPatch) -> float:
    """The first action of a decision whose search finds these plans."""
    monkeypatch.setattr(tt.Planning, "plans", lambda self, state, key: plans)
    return float(jax.jit(lambda: policy.decide(begun(policy), jax.random.key(0), 2)[0])()[0, 0])


@pytest.fixture(scope="module")
def plans() -> tt.Plans:
    policy = tt.policy(WIDE, learner())
    return jax.jit(lambda policy, *given: policy.plans(*given))(policy, begun(policy), jax.random.key(0))


def test_the_actions_of_the_best_plans_are_averaged(plans: tt.Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner()
    policy = tt.policy(replace(WIDE, elite_fraction=0.7), made)
    tokens = np.asarray(plans.tokens)[:11, 0, 2]  # the first step, at which no plan stops
    assert len(set(tokens.tolist())) > 1
    read = np.asarray(policy.statistics.discretiser.centres)[2][tokens]
    assert done(policy, plans, monkeypatch) == pytest.approx(read.mean(), rel=1e-5)
    likely = replace(TINY, elite_fraction=0.7, search="likelihood")
    assert tt.policy(likely, made).search.elite_count == tt.policy(TINY, made).search.elite_count == 1


def test_better_plans_weigh_more_in_the_mean(plans: tt.Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    """exp(score / (plan_temperature x spread)), the spread that of the bins of values; of a critic's Q in the critic's
    units.
    """
    policy = tt.policy(replace(WIDE, elite_fraction=1.0, plan_temperature=0.02), learner())

    def share(policy: tt.Planning, spread: float, plans: tt.Plans) -> np.ndarray:
        score = np.asarray(plans.score, np.float64)
        weight = np.exp((score - score.max()) / (0.02 * spread))
        read = np.asarray(policy.statistics.discretiser.centres)[2][np.asarray(plans.tokens)[:, 0, 2]]
        expected = read @ weight / weight.sum()
        assert done(policy, plans, monkeypatch) == pytest.approx(expected, rel=1e-3, abs=1e-5)
        return weight / weight.sum()

    spread = float(np.std(np.asarray(policy.statistics.discretiser.centres)[-1]))
    alone = share(policy, spread, plans)
    assert 0.08 < alone.max() < 0.9  # neither all alike nor one alone, or the test would be none
    config = iql.Config(hidden=8, layers=1)
    q_function = jax.jit(lambda key: iql.q_function(config, iql.new_policy(config, SPEC, key)))(jax.random.key(0))
    tenth = replace(q_function, statistics=replace(q_function.statistics, scale=jnp.asarray(10.0)))
    by_q = tt.Plans(plans.tokens, jnp.asarray(np.asarray(plans.score) / 10))
    np.testing.assert_allclose(share(replace(policy, q_function=tenth), spread / 10, by_q), alone, rtol=1e-3)


def test_where_a_plan_foresees_the_end_the_last_action_is_held() -> None:
    policy = tt.policy(replace(TINY, horizon=5), learner())
    tokens = jnp.array([[3], [6], [2], [6], [6]])
    np.testing.assert_array_equal(policy._real(tokens)[:, 0], [3, 3, 2, 2, 2])


@pytest.fixture(scope="module")
def taught() -> tt.Learner:
    """A learner that has learnt from random actions what they pay."""
    config = TAUGHT
    statistics, source = tt.prepare(config, SPEC, bandit(400), None, "")

    def turn(learner: tt.Learner, key: jax.Array) -> tuple[tt.Learner, None]:
        k_draw, k_update = jax.random.split(key)
        return tt.update(config, learner, source.draw(k_draw, tt.batches(config)), k_update)[0], None

    @jax.jit
    def trained(statistics: tt.TokenStatistics, keys: jax.Array) -> tt.Learner:
        return jax.lax.scan(turn, tt.init(config, SPEC, jax.random.key(0), statistics), keys)[0]

    return trained(statistics, jax.random.split(jax.random.key(1), TAUGHT.anneal_over))


TAUGHT = replace(TINY, window=3, size=16, beams=8, batch_size=32, learning_rate=1e-2, action_weight=1.0)
TAUGHT = replace(TAUGHT, warmup=20, anneal_over=300, action_cdf=0.0, gamma=0.5, penalty=None)


@pytest.mark.parametrize("search", ["return", "likelihood", "mean"])
def test_it_plans_for_what_it_was_asked(search: Any, taught: tt.Learner) -> None:
    """From random actions: the search for return finds those that pay; imitation as the data, now so, now so."""

    @jax.jit
    @jax.vmap
    def earned(observations: jax.Array) -> jax.Array:
        policy = tt.policy(replace(TAUGHT, search=search), taught)

        def turn(carry: Any, s: jax.Array) -> Any:
            state, last = carry
            state = policy.observe(state, Step(s, last.reward, last.executed, last.first))
            actions, state = policy.decide(state, None, 1)
            reward = jnp.sign(actions[0, 0] * s[0])
            return (state, Step(s, reward, actions[0], jnp.asarray(False))), reward

        before = policy.init_state(()), Step(observations[0], jnp.zeros(()), jnp.zeros(1), jnp.asarray(True))
        return jax.lax.scan(turn, before, observations)[1]

    right = np.asarray(earned(np.random.default_rng(1).normal(size=(20, 4, 2)).astype(np.float32))) > 0
    assert np.mean(right) > 0.85 if search == "return" else 0.2 < np.mean(right) < 0.8


def test_bfloat16_is_close_and_keeps_parameters_whole() -> None:
    found = {}
    batch = jax.jit(lambda source, key: source.draw(key, tt.batches(TINY)))(prepared()[1], jax.random.key(1))
    for dtype in ("float32", "bfloat16"):
        config = replace(TINY, dtype=dtype)  # type: ignore[arg-type]
        step = jax.jit(lambda learner, batch, config=config: tt.update(config, learner, batch, jax.random.key(2)))
        after, metrics = step(learner(config), batch)
        found[dtype] = float(metrics["loss"])
        assert {leaf.dtype for leaf in jax.tree.leaves(after.network)} == {jnp.dtype("float32")}
    assert found["float32"] != found["bfloat16"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)


def test_a_goal_is_one_that_the_data_knows(tmp_path: Path) -> None:
    config = replace(TINY, goals="last", returns=False, search="likelihood")
    made = tt.policy(config, learner(config))
    state = made.init_state(np.array([0.5, -0.5]))
    bins = made.statistics.discretiser
    np.testing.assert_array_equal(state.goal, encode(bins, np.float32([0.5, -0.5, 0.0]))[:2])
    for goal, words in (
        ((), "begin with an observation of 2 numbers"),
        (np.zeros(3), "begin with an observation of 2 numbers"),
        (np.array([0.0, np.nan]), "begin with an observation of 2 numbers, all finite"),
        (["0", "0"], "begin with an observation of 2 numbers"),
        (np.array([0.0, 99.0]), "number 1 of the goal is 99; the data lies between"),
    ):
        with pytest.raises(LegatoError, match=words):
            made.init_state(goal)
    with pytest.raises(LegatoError, match="reads no target return and no goal"):
        tt.policy(TINY, learner(TINY)).init_state(np.zeros(2))
    settings = OfflineSettings(dataset="bandit", env="legato/FourRooms-v0", updates=1)
    with pytest.raises(LegatoError, match="leave `env` out"):
        offline.start("tt", "cpu", config, settings, tmp_path / "run", data=bandit(), quiet=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context": 5}, "cannot read 5 steps in a model of 4"),
        ({"context": 1}, "context must be at least 2"),
        ({"bins": 1}, "bins must be at least 2"),
        ({"returns": False}, "choose search likelihood or mean"),
        ({"goals": "last"}, "choose search likelihood or mean"),
        ({"label_smoothing_bins": -1.0}, "label_smoothing_bins must be at least 0"),
        ({"heads": 3}, "does not divide among 3 heads"),
        ({"percentile": 1.0}, "percentile must lie in"),
        ({"elite_fraction": 1.1}, "elite_fraction must lie in"),
        ({"elite_fraction": 1.0, "plan_temperature": -0.1}, "plan_temperature must be at least 0"),
        ({"plan_temperature": 0.1}, "plan_temperature weighs several plans"),
        ({"gamma": 0.0}, "gamma must lie in"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=words):
        replace(TINY, **changes)


def test_data_that_cannot_be_learnt_from_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    settings = OfflineSettings(dataset="bandit", updates=1)
    for data, config, words in (
        (bandit(2), replace(TINY, bins=9), "8 steps cannot fill 9 bins"),
        (replace(bandit(), rewards=None), TINY, "no rewards"),
    ):
        with pytest.raises(LegatoError, match=words):
            offline.start("tt", "cpu", config, settings, tmp_path / "run", data=data, quiet=True)
        assert not (tmp_path / "run").exists()
    with pytest.raises(LegatoError, match="leave out stream"):
        logged_data.check("tt", TINY, replace(settings, stream="always"), bandit())


def test_the_papers_plans_are_those_of_each_dataset() -> None:
    def planned(name: str) -> tuple:
        config, settings = preset("paper", "tt", name)
        assert isinstance(config, TT)
        return config.horizon, config.beams, config.action_cdf, config.action_k, config.batch_size, settings.updates  # type: ignore[union-attr]

    assert planned("D4RL/hopper/medium-v2") == (15, 128, 0.6, 0, 256, 195_000)
    assert planned("D4RL/halfcheetah/medium-replay-v2") == (5, 32, 0.6, 0, 256, 195_000)
    assert planned("D4RL/halfcheetah/medium-expert-v2") == (15, 32, 0.6, 0, 256, 195_000)
    assert planned("D4RL/walker2d/medium-replay-v2") == (20, 32, 0.0, 40, 256, 312_000)
    assert planned("D4RL/hopper/medium-replay-v2") == (15, 128, 0.6, 0, 256, 312_000)
    assert planned("D4RL/ant/medium-v2") == (5, 128, 0.6, 0, 128, 390_000)
    assert planned("D4RL/ant/medium-expert-v2") == (15, 128, 0.6, 0, 256, 195_000)
    assert planned("logs/important_hopper_medium.hdf5") == (15, 128, 0.6, 0, 256, 195_000)  # no ant


# --- TT(+Q) ---


def untrained(algorithm: str, *args: Any, **options: Any) -> Path:
    """A run that looks finished, whose learners begin in one compiled step."""
    with pytest.MonkeyPatch.context() as patched:
        module = algorithm_module(algorithm)
        patched.setattr(module, "init", jax.jit(module.init, static_argnums=(0, 1)))
        return untrained_on_logs(algorithm, *args, **options).path


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained("tt", tmp_path_factory.mktemp("runs") / "tt", SPEC, prepared()[0], seeds=2)


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained("iql", tmp_path_factory.mktemp("runs") / "iql", SPEC, seeds=1)


def test_a_search_by_a_critic_chooses_what_the_critic_likes(searcher: Path, critic: Path) -> None:
    statistics, wide = prepared()[0], {"beams": 64, "expand": 1}
    plain, guided = (legato.load(searcher, 1, critic=by, search=wide) for by in (None, critic))
    assert isinstance(guided.policy, tt.Planning)
    q_function = guided.policy.q_function
    assert q_function is not None
    observed = guided.policy.observed
    q = jax.jit(lambda s, actions: q_function(jnp.tile(observed.decode(observed.encode(s)), (6, 1)), actions))
    centres = np.asarray(statistics.discretiser.centres)
    done: dict[str, list[float]] = {"plain": [], "guided": []}
    for s in np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32):
        # One step ahead with 64 draws of 6 actions: all were judged, and the best by Q is done.
        worth = np.asarray(q(s, centres[2][:, None])).tolist()
        for name, player in (("plain", plain), ("guided", guided)):
            done[name].append(float(player.act(player.begin(), s)[0][0, 0]))
        assert done["guided"][-1] == pytest.approx(float(centres[2][int(np.argmax(worth))])) and len(set(worth)) > 1
    assert done["plain"] != done["guided"]


def test_an_update_in_groups_is_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one window has more to be learnt than another."""
    made, rng = learner(), np.random.default_rng(0)
    known = jnp.arange(4) < jnp.asarray([4, 1, 3, 2, 4, 1, 1, 2])[:, None]
    batch = Windows(jnp.asarray(rng.integers(0, 7, (8, 4, 5))), known, jnp.zeros((8, 2), int))
    found = []
    for cached in (10_000, 40):
        monkeypatch.setattr(optimisation, "CACHED", cached)
        step = jax.jit(lambda made, batch: tt.update(TINY, made, batch, jax.random.key(0)))
        found.append(step(made, batch)[1])
    assert all(float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-5) for name in found[0])


def test_a_trained_model_is_searched_as_it_is_told(searcher: Path, tmp_path: Path) -> None:
    """With other options of the search it acts as a run would that had them from the start."""
    other = {
        "beams": 5,
        "horizon": 3,
        "elite_fraction": 0.7,
        "plan_temperature": 0.2,
        "context": 2,
        "percentile": 0.4,
        "action_k": 4,
    }
    told = untrained("tt", tmp_path / "told", SPEC, prepared()[0], **other)
    same, found = legato.load(told), legato.load(searcher, search=other)
    assert found.card.config == same.card.config != legato.load(searcher).card.config
    assert isinstance(found.policy, tt.Planning) and isinstance(same.policy, tt.Planning)
    assert (found.policy.search, found.policy.context) == (same.policy.search, same.policy.context)
    acts = [player.act(player.begin(), [0.3, -0.2], length=3)[0].tolist() for player in (found, same)]
    assert acts[0] == acts[1]
    for wrong, words in (({"beams": 2.5}, "beams of a search is of type int"), ({"search": "best"}, "not for 'best'")):
        with pytest.raises(LegatoError, match=words):
            legato.load(searcher, search=wrong)
    likely = legato.load(searcher, search={"search": "likelihood"}).policy
    assert isinstance(likely, tt.Planning) and likely.by == "likelihood"


def test_who_cannot_search_by_whom_is_one_line(searcher: Path, critic: Path, tmp_path: Path) -> None:
    likely = {"search": "likelihood", "returns": False}
    statistics, _ = prepared(replace(TINY, **likely))
    by_likelihood = untrained("tt", tmp_path / "likelihood", SPEC, statistics, **likely)
    bc = untrained("bc", tmp_path / "bc", SPEC)
    wide = untrained("iql", tmp_path / "wide")
    for plans, judges, words in (
        (by_likelihood, critic, "a policy of 'tt' searches for no return"),
        (bc, critic, "a policy of 'bc' takes no search and no critic: those of srl, usac, tt, mbpo, cmlo and mopo do"),
        (searcher, bc, "a policy of 'bc' has no Q to search by"),
        (searcher, wide, "the critic judges 3 observed numbers"),
        (searcher, tmp_path / "none", "is not a saved policy"),
    ):
        with pytest.raises(LegatoError, match=words):
            legato.load(plans, critic=judges)
