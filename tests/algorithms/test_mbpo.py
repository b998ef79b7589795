"""MBPO and CMLO: schedules, the pool, units, when the model is fitted and looked at, what an environment decides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import close, same, transitions

from legato.algorithms.entry import Task
from legato.algorithms.mbpo import imagination, known, mbpo
from legato.algorithms.mbpo.config import CMLO, MBPO, paper
from legato.algorithms.mbpo.imagination import Learner, Pool, Rows, rollout_steps
from legato.algorithms.mbpo.units import Units, change_units, measure_units
from legato.algorithms.protocol import Counts
from legato.algorithms.sac import sac
from legato.data import device_memory
from legato.data.normaliser import Normaliser
from legato.data.replay import Replay, Transition, unpack
from legato.data.spec import Spec
from legato.envs import EnvironmentConfig
from legato.errors import LegatoError
from legato.models.terminations import terminate_hopper, terminate_inverted_pendulum
from legato.training.policy_file import named_leaves
from legato.training.settings import preset

SPEC = Spec(2, (-0.2,), (0.8,))
TINY: dict[str, Any] = {"members": 2, "elites": 1, "model_hidden": (8,), "hidden": 8, "batch_size": 16}
TINY |= {"rollouts": 16, "rollout_length": (1, 3), "rollout_growth": (0, 100), "retain": 2, "termination": "never"}
TINY |= {"first_fit": 20, "units": "environment"}
CONFIG = MBPO(**TINY, real_share=0.25)
CAPACITY = 16 * 3 * 2
init = jax.jit(mbpo.init, static_argnums=(0, 1))
update = jax.jit(mbpo.update, static_argnums=0)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return init(CONFIG, SPEC, jax.random.key(0))


def some_rows(filled: int = 40) -> Rows:
    """Real transitions, beyond which there is nothing."""
    found = transitions(0, SPEC, 40, 1.0)
    parts = found.observation, found.action, found.reward, found.next_observation, found.continues
    kept = [np.where(np.arange(40).reshape(-1, *(1,) * (part.ndim - 1)) < filled, part, 0) for part in parts]
    return Rows(*(jnp.asarray(part, jnp.float32) for part in kept), filled, filled - 1)


# --- schedules ---


@pytest.mark.parametrize(
    ("env", "updates", "length", "growth", "entropy", "start", "every", "width", "retain"),
    [
        ("HalfCheetah-v5", 40, (1, 1), (20_000, 150_000), -3.0, 5_000, 250, 200, 1),
        ("Hopper-v5", 20, (1, 15), (20_000, 150_000), -1.0, 5_000, 250, 200, 1),
        ("Ant-v5", 20, (1, 25), (20_000, 100_000), -4.0, 5_000, 250, 200, 1),
        ("Humanoid-v5", 20, (1, 25), (20_000, 300_000), -2.0, 5_000, 1_000, 400, 5),
        ("InvertedPendulum-v5", 10, (1, 1), (250, 3_750), -0.05, 500, 250, 200, 1),
    ],
)
def test_the_paper_preset_is_the_authors_table(
    env: str, updates: int, length: Any, growth: Any, entropy: float, start: int, every: int, width: int, retain: int
) -> None:
    config, settings = preset("paper", "mbpo", env)
    assert (settings.updates_per_step, settings.start_steps, config.first_fit) == (updates, start, start)
    assert (config.rollout_length, config.rollout_growth, config.target_entropy) == (length, growth, entropy)
    assert (config.refit_every, config.retain, config.model_hidden) == (every, retain, (width,) * 4)
    assert (config.members, config.elites, config.rollouts, config.real_share) == (7, 5, 100_000, 0.05)
    assert (config.gamma, config.tau, config.learning_rate, config.batch_size) == (0.99, 0.005, 3e-4, 256)
    assert config.units == "environment" and config.update == "clock"


@pytest.mark.parametrize("env", ["Pendulum-v1", "Hopper-v5", "legato/LQR-v0", "legato/KuramotoSivashinsky-v0"])
@pytest.mark.parametrize("algorithm", ["mbpo", "cmlo"])
def test_the_cpu_preset_is_smaller_and_begins_to_learn_where_random_steps_end(algorithm: str, env: str) -> None:
    (paper, long), (config, short) = (preset(name, algorithm, env) for name in ("paper", "cpu"))
    assert short.steps < long.steps and short.start_steps == config.first_fit < paper.first_fit
    assert config.rollouts < paper.rollouts and config.members < paper.members and config.anneal_over == -1
    assert config.update == paper.update == {"mbpo": "clock", "cmlo": "event"}[algorithm]


def test_roll_outs_grow_on_a_line_and_are_rounded_towards_zero() -> None:
    """As published for Hopper: 1 step up to epoch 20, 15 from epoch 150 on."""
    hopper = MBPO(**paper(Task("Hopper-v5")).options)
    for epoch in range(200):
        exact = 1 + min(Fraction(1), max(Fraction(0), Fraction(epoch - 20, 130))) * 14
        assert rollout_steps(hopper, 1_000 * epoch) == int(exact), epoch
    assert [rollout_steps(hopper, 1_000 * epoch) for epoch in (20, 29, 30, 149, 150)] == [1, 1, 2, 14, 15]
    exactly = MBPO(rollout_length=(1, 101), rollout_growth=(0, 100))
    assert [rollout_steps(exactly, step) for step in range(102)] == [*range(1, 102), 101]
    falling = MBPO(rollout_length=(5, 1), rollout_growth=(10, 12))
    assert [rollout_steps(falling, step) for step in (0, 10, 11, 12, 99)] == [5, 5, 3, 1, 1]
    at_once = MBPO(rollout_length=(1, 4), rollout_growth=(10, 10))
    assert [rollout_steps(at_once, step) for step in (10, 11)] == [1, 4]


@pytest.mark.parametrize(("share", "real", "sampled"), [(0.05, 12, 12), (0.0, 0, 1), (1.0, 256, 256)])
def test_real_rows_of_a_minibatch(share: float, real: int, sampled: int) -> None:
    config = MBPO(real_share=share)
    assert (imagination.real_rows(config), mbpo.batches(config).size) == (real, sampled)


# --- the pool ---


@partial(jax.jit, static_argnums=2)
def draw(pool: Pool, key: Any, size: int) -> Transition:
    return pool.draw(key, size, SPEC)


def test_only_the_newest_rows_of_the_pool_are_drawn_and_all_of_them() -> None:
    rows = jnp.broadcast_to(jnp.arange(CAPACITY, dtype=jnp.float32)[:, None], (CAPACITY, imagination.pool_width(SPEC)))
    for added, drawn_from in ((5, 32), (100, 5), (150, 96)):
        drawn = draw(Pool(rows, jnp.asarray(added), jnp.asarray(drawn_from)), jax.random.key(added), 2_000)
        expected = {(added - 1 - i) % CAPACITY for i in range(min(added, drawn_from))}
        assert set(np.asarray(drawn.observation)[:, 0].astype(int).tolist()) == expected


def test_what_is_imagined_goes_round_in_the_pool_and_no_empty_row_is_drawn(learner: Learner) -> None:
    """16 rows at first and 48 in the end, of which two times are kept; the count stays small however long a run is."""
    found, rows, total = learner, some_rows(25), 0
    for i, (step, steps) in enumerate([(0, 1), (0, 1), (100, 3), (100, 3), (100, 3), (100, 3), (100, 3), (100, 3)]):
        before = found.pool
        found = imagination.imagine(CONFIG, found, rows, step, jax.random.key(i))
        total += 16 * steps
        assert int(found.pool.added) % CAPACITY == total % CAPACITY
        assert min(total, CAPACITY) <= int(found.pool.added) < 2 * CAPACITY
        assert int(found.pool.drawn_from) == 2 * 16 * steps
        new = (int(before.added) + np.arange(16 * steps)) % CAPACITY
        old = np.setdiff1d(np.arange(CAPACITY), new)
        np.testing.assert_array_equal(found.pool.rows[old], before.rows[old])
        drawn = draw(found.pool, jax.random.key(i), 500)
        assert (np.abs(drawn.observation).sum(axis=1) > 0).all()
        assert float(found.report["imagined_steps"]) == steps
    starts = np.asarray(imagination.unpack(found.pool.rows[new[:16]], SPEC).observation)
    known = np.asarray(rows.observation)[:25]
    assert all((np.abs(known - start).max(axis=1) < 1e-6).any() for start in starts)
    assert len(np.unique(starts, axis=0)) > 5


def test_roll_outs_start_in_recent_steps_where_that_is_asked_for(learner: Learner) -> None:
    rows = some_rows()._replace(newest=1)  # a ring that has gone round: the newest three are 39, 0 and 1
    found = imagination.imagine(replace(CONFIG, recent_starts=3), learner, rows, 0, jax.random.key(0))
    starts = np.asarray(imagination.unpack(found.pool.rows[:16], SPEC).observation)
    known = np.asarray(rows.observation)[[39, 0, 1]]
    np.testing.assert_allclose(np.unique(starts, axis=0), np.unique(known, axis=0), rtol=1e-6)


def test_a_model_that_only_leads_astray_ends_the_run(learner: Learner) -> None:
    lost = eqx.tree_at(lambda whole: whole.model.ensemble.inputs.mean, learner, jnp.full(3, 1e6))
    with pytest.raises(LegatoError, match="none of 16 imagined next states is near the data"):
        imagination.imagine(CONFIG, lost, some_rows(), 0, jax.random.key(0))


# --- units and the update ---


def test_units_are_those_of_the_newest_steps() -> None:
    rng = np.random.default_rng(0)
    s = np.concatenate([rng.normal(3, 2, (40, 1)), np.ones((40, 1))], axis=1).astype(np.float32)
    r = rng.normal(-5, 4, 40).astype(np.float32)
    newest = [i % 40 for i in range(5, 5 - 12, -1)]
    units = measure_units(12, jnp.asarray(s), jnp.asarray(r), jnp.asarray(40), jnp.asarray(5))
    np.testing.assert_allclose(units.observation.mean, s[newest].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(units.observation.deviation, [s[newest, 0].std(), 1], rtol=1e-5)
    assert float(units.reward) == pytest.approx(r[newest].std(), rel=1e-5)


def test_policy_values_and_temperature_stay_when_units_change(learner: Learner) -> None:
    """Only what networks read and write changes: a raw observation leads to the same action and the same raw value."""
    old = Units(Normaliser(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.5])), jnp.asarray(3.0))
    new = Units(Normaliser(jnp.array([0.0, 5.0]), jnp.array([2.0, 0.7])), jnp.asarray(0.5))
    changed = change_units(learner.sac, old, new)
    s, a = jax.random.normal(jax.random.key(1), (9, 2)), jax.random.normal(jax.random.key(2), (9, 1))

    @jax.jit
    def said(sac: Any, units: Units) -> Any:
        seen = units.observation(s)
        values = [jnp.stack(critic(seen, a)) * units.reward for critic in (sac.critic, sac.target_critic)]
        return sac.actor(seen).mean, sac.actor(seen).log_std, values, sac.alpha * units.reward, sac.log_alpha

    before, after = said(learner.sac, old), said(changed, new)
    close(after[:-1], before[:-1], 1e-4)
    close(after[-1], before[-1] + np.log(6), 1e-5)
    assert not same(changed.actor.l1, learner.sac.actor.l1)


def test_with_real_steps_alone_it_is_sac_bit_for_bit() -> None:
    config = MBPO(**{**TINY, "real_share": 1.0})
    plain = sac.Config(hidden=8, batch_size=16, learning_rate=3e-4, gamma=0.99, tau=0.005)
    of_sac = jax.jit(sac.init, static_argnums=(0, 1))(plain, SPEC, jax.random.key(1))
    ours = replace(init(config, SPEC, jax.random.key(0)), sac=of_sac)
    sac_update = jax.jit(sac.update, static_argnums=0)
    for i in range(3):
        batch = (transitions(i, SPEC, 16),)
        ours, metrics = update(config, ours, batch, jax.random.key(i))
        of_sac, expected = sac_update(plain, of_sac, batch, jax.random.key(i))
        assert same(ours.sac, of_sac)
        assert same({name: metrics[name] for name in expected}, expected)


def test_a_minibatch_is_of_real_and_imagined_steps_in_sacs_units(learner: Learner) -> None:
    """Four real ones first, twelve from the pool, against an update of SAC on the same numbers."""
    found = imagination.imagine(CONFIG, learner, some_rows(), 100, jax.random.key(0))
    units = Units(Normaliser(jnp.array([1.0, -2.0]), jnp.array([2.0, 0.5])), jnp.asarray(4.0))
    found, real, key = replace(found, units=units), transitions(5, SPEC, 4), jax.random.key(9)
    after, _ = update(CONFIG, found, (real,), key)
    k_draw, k_update = jax.random.split(key)
    drawn = draw(found.pool, k_draw, 12)
    real = replace(real, action=SPEC.normalise(real.action), previous_action=SPEC.normalise(real.previous_action))
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), real, drawn)
    scaled = replace(
        whole,
        observation=(whole.observation - units.observation.mean) / units.observation.deviation,
        next_observation=(whole.next_observation - units.observation.mean) / units.observation.deviation,
        reward=whole.reward / 4,
        action=SPEC.denormalise(whole.action),
        previous_action=SPEC.denormalise(whole.previous_action),
    )
    expected, _ = jax.jit(sac.update, static_argnums=0)(
        sac.Config(hidden=8, batch_size=16, learning_rate=3e-4, gamma=0.99, tau=0.005), found.sac, (scaled,), k_update
    )
    close(after.sac.actor, expected.actor, 1e-5)
    close(after.sac.critic, expected.critic, 1e-5)


# --- when the model is fitted, unrolled and looked at ---


def refreshes(
    config: MBPO, learner: Learner, monkeypatch: pytest.MonkeyPatch, turn: int = 1, until: int = 100
) -> tuple[list[int], list[int], Learner]:
    """The steps after which the model was fitted, those after which it was unrolled, and the learner in the end."""
    fits: list[int] = []
    unrolled: list[int] = []
    now = Counts(0, 0)

    def fit(config: Any, learner: Learner, *rest: Any) -> Learner:
        fits.append(now.steps)
        return learner

    def imagine(config: Any, learner: Learner, rows: Rows, step: int, *rest: Any) -> Learner:
        unrolled.append(step)
        return learner

    monkeypatch.setattr(imagination, "fit", fit)
    monkeypatch.setattr(imagination, "imagine", imagine)
    rows, rng = np.zeros((1, 60, 8), np.float32), np.random.default_rng(0)
    stacked, last = jax.tree.map(lambda leaf: leaf[None], learner), None
    for steps in range(turn, until + 1, turn):
        place = np.arange(steps - turn, steps) % 60
        rows[0, place] = rng.normal(size=(turn, 8))
        now = Counts(steps, 0)
        if mbpo.refresh_due(config, stacked, last, now):
            replay = Replay(jnp.asarray(rows), jnp.asarray([steps]), SPEC)
            keys = jax.random.split(jax.random.key(0), 1)
            stacked, _ = mbpo.refresh(config, stacked, replay, keys, lambda *told: None, last, now)
            last = now
    return fits, unrolled, stacked


@pytest.mark.parametrize(
    ("options", "turn", "fits", "unrolled"),
    [
        ({"refit_every": 25}, 1, [20, 25, 50, 75, 100], [20, 25, 50, 75, 100]),
        ({"refit_every": 25}, 10, [20, 30, 50, 80, 100], [20, 30, 50, 80, 100]),
        ({"refit_every": 0}, 1, [20], [20]),
        ({"refit_every": 0, "imagine_every": 40}, 1, [20], [20, 40, 80]),
        ({"refit_every": 50, "imagine_every": 20, "first_fit": 33}, 1, [33, 50, 100], [33, 40, 50, 60, 80, 100]),
        ({"real_share": 1.0}, 1, [], []),
    ],
)
def test_the_model_is_fitted_on_its_clock(
    options: dict[str, Any],
    turn: int,
    fits: list[int],
    unrolled: list[int],
    learner: Learner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refreshes(replace(CONFIG, **options), learner, monkeypatch, turn)[:2] == (fits, unrolled)


def test_updates_wait_for_the_first_fit(learner: Learner) -> None:
    for config in (CONFIG, replace(CONFIG, real_share=1.0)):
        assert [mbpo.refresh_due(config, learner, None, Counts(steps, 0)) for steps in (1, 19, 20)] == [0, 0, 1]


@pytest.mark.parametrize(("threshold", "gap"), [(1e-9, 12), (1e9, 22)])
def test_a_model_is_refitted_no_earlier_and_no_later_than_allowed(
    threshold: float, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 is the first check after the shortest, 10; the longest, 22, is no check."""
    config = CMLO(**TINY, check_every=4, shortest=10, longest=22, threshold=threshold)
    learner = init(config, SPEC, jax.random.key(0))
    fits, unrolled, after = refreshes(config, learner, monkeypatch)
    gaps = np.diff(fits)
    assert fits[0] == 20 and ((gaps >= 10) & (gaps <= 22)).all()
    assert gaps[0] == gap
    assert set(range(24, 101, 4)) <= set(unrolled)  # at every check
    assert int(after.trigger.refits[0]) == len(fits) - 1
    assert int(after.trigger.steps[0]) == unrolled[-1] - fits[-1]
    assert float(after.report["prediction_error"][0]) > 0
    kept = named_leaves(after)
    assert {name for name in kept if "trigger" in name} and len(kept) == len(named_leaves(learner))


def test_an_error_as_large_as_the_model_had_when_it_was_fitted_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However little would be enough: these fits change nothing, and the rows are alike."""
    config = CMLO(**TINY, trigger="cusum", check_every=4, shortest=10, longest=22, threshold=1e-9)
    fits, _, after = refreshes(config, init(config, SPEC, jax.random.key(0)), monkeypatch)
    assert fits == [20, 42, 64, 86]
    assert float(after.trigger.expected_error[0]) == pytest.approx(float(after.report["prediction_error"][0]), rel=0.5)


# --- what the environment decides ---


def decided(environment: str | None, **options: Any) -> MBPO:
    named = None if environment is None else EnvironmentConfig(environment)
    return mbpo.for_environment(MBPO(**{**TINY, "termination": "auto", **options}), SPEC, named)


def test_an_environments_rule_is_used_where_it_is_known() -> None:
    pytest.importorskip("mujoco")
    found = {}
    for name in ("InvertedPendulum-v5", "Hopper-v5"):
        config = decided(name)
        assert config.termination == "rule" and name in config.known_from
        assert decided(name, termination="never").known_from == ""
        found[name] = known.known_functions(config.known_from).rule
    assert tuple(found.values()) == (terminate_inverted_pendulum, terminate_hopper)


def test_what_is_not_known_is_learnt_or_refused() -> None:
    assert decided(None).termination == "learned" and decided(None).known_from == ""
    assert decided("Pendulum-v1", termination="learned").termination == "learned"
    assert decided("Pendulum-v1").termination == "rule"
    with pytest.raises(LegatoError, match=r"the reward of 'Pendulum-v1' is not known .* learn it, `reward=learned`"):
        decided("Pendulum-v1", reward="known")
    with pytest.raises(LegatoError, match="no rule is known by which the environment terminates"):
        decided(None, termination="rule")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "Pendulum-v1", "more": 1}', '{"name": 3}'])
def test_an_environment_that_was_written_otherwise_is_one_line(text: str) -> None:
    with pytest.raises(LegatoError, match=r"^(`known_from` is an environment as JSON|an environment has a name)"):
        known.known_functions(text)


def test_a_known_reward_reads_actions_in_the_environments_units() -> None:
    config = decided("legato/LQR-v0", reward="known")
    assert config.known_from and config.termination == "rule"
    shapes = jax.eval_shape(partial(mbpo.init, config, SPEC), jax.random.key(0))
    assert shapes.model.ensemble.outputs.mean.shape == (2,)  # no reward is predicted
    s, unit = jnp.array([[1.0, 2.0]]), jnp.array([[-1.0]])  # -0.2 in its units
    assert float(shapes.model.reward(s, unit, s)[0]) == pytest.approx(-(1 + 0.4 + 0.1 * 0.04), rel=1e-5)
    assert shapes.model.termination is None and not shapes.model.rule(s, unit, s).any()


def test_what_does_not_fit_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MBPO(rollouts=1_000, rollout_length=(1, 10), retain=3)
    mbpo.check(config, SPEC, "")
    monkeypatch.setattr(device_memory, "available", lambda: 10**6)
    with pytest.raises(LegatoError, match=r"a pool of 30000 imagined transitions of 28 bytes takes .* lower `roll"):
        mbpo.check(config, SPEC, "")
    mbpo.check(replace(config, real_share=1.0), SPEC, "")
    for spec, what in ((Spec.discrete(2, 3), "choices"), (Spec(12, (-1.0,), (1.0,), shape=(2, 2, 3)), "images")):
        with pytest.raises(LegatoError, match=f"vectors and continuous actions only, no {what}"):
            mbpo.check(config, spec, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elites": 8}, "elites must be at most members, 7; 8 was given"),
        ({"rollout_growth": (5, 4)}, "must not end before it begins"),
        ({"shortest": 501}, "shortest must be at most longest, 500"),
        ({"trigger": "cusum", "trigger_scale": "raw"}, "trigger=cusum counts unit-free errors"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LegatoError, match=message):
        MBPO(**options)


def test_rows_of_the_pool_come_back_as_they_were_packed() -> None:
    rows = jnp.arange(2 * 7, dtype=jnp.float32).reshape(2, 7)
    found = imagination.unpack(rows, SPEC)
    np.testing.assert_array_equal(found.observation, [[0, 1], [7, 8]])
    np.testing.assert_array_equal(found.action, [[2], [9]])
    np.testing.assert_array_equal(found.reward, [3, 10])
    np.testing.assert_array_equal(found.next_observation, [[4, 5], [11, 12]])
    np.testing.assert_array_equal(found.continues, [6, 13])
    assert not found.previous_action.any() and unpack is not imagination.unpack
