"""Plants of partial differential equations: the solver by closed forms, the attractor, controllers by known returns."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.envs import make
from legato.envs.tasks.pde import Burgers, KuramotoSivashinsky, attractor, controllers, spectral
from legato.envs.tasks.pde.burgers import burgers
from legato.envs.tasks.pde.kuramoto_sivashinsky import kuramoto_sivashinsky
from legato.envs.tasks.pde.starts import lyapunov_exponent
from legato.errors import LegatoError

NAME = "legato/KuramotoSivashinsky-v0"


def solve(plant: spectral.Plant, field: np.ndarray, action: Any) -> np.ndarray:
    """The field after a control step."""
    path = spectral.advance(np, plant, spectral.to_modes(np, plant, field), spectral.force(plant, np.array(action)))
    return spectral.to_field(np, plant, path[-1])


# --- the solver ---


def test_coefficients_are_those_of_runge_kutta_without_a_linear_part_and_as_written_elsewhere() -> None:
    h = 0.1
    still = [float(value[0]) for value in spectral.coefficients(np.zeros(1), h)]
    np.testing.assert_allclose(still, [1, 1, h / 2, h / 6, h / 3, h / 6], rtol=1e-12)
    z = h * np.array([-300.0, -70.0, 20.0])
    _, _, stage, first, middle, last = spectral.coefficients(z / h, h)
    np.testing.assert_allclose(stage, h * np.expm1(z / 2) / z, rtol=1e-10)
    np.testing.assert_allclose(first, h * (-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3, rtol=1e-10)
    np.testing.assert_allclose(middle, 2 * h * (2 + z + np.exp(z) * (z - 2)) / z**3, rtol=1e-10)
    np.testing.assert_allclose(last, h * (-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3, rtol=1e-10)


def test_burgers_has_the_solution_of_cole_and_hopf() -> None:
    """u = -2 nu phi_x / phi, of phi = 1 + q cos(k x) exp(-nu k^2 t), which diffuses."""
    plant, nu, k, q = burgers(), 0.01, 2 * np.pi, 0.95
    x = np.arange(150) / 150

    def exact(time: float) -> np.ndarray:
        faded = q * np.exp(-nu * k**2 * time)
        return 2 * nu * k * faded * np.sin(k * x) / (1 + faded * np.cos(k * x))

    assert exact(0.0).max() > 0.35 and exact(2.5).max() < 0.6 * exact(0.0).max()
    found = exact(0.0)
    for _ in range(5):
        found = solve(plant, found, [-0.5, -0.5])  # no forcing
    np.testing.assert_allclose(found, exact(2.5), atol=2e-6)


def test_a_small_field_grows_and_is_driven_as_the_linear_equation_says() -> None:
    plant = kuramoto_sivashinsky(substeps=100)
    rates, drive = controllers.linear_model(plant)
    np.testing.assert_allclose(rates[1:9:2], [0.0749, 0.2198, 0.1952, -0.3981], atol=6e-5)
    rng, small, time = np.random.default_rng(0), 1e-7, 5.0
    start, action = small * rng.standard_normal(9), small * rng.standard_normal(4)
    basis = controllers.real_modes(plant, spectral.to_modes(np, plant, np.eye(64))).T * 64  # [modes, points]
    found = controllers.real_modes(plant, spectral.to_modes(np, plant, solve(plant, start @ basis[:9], action)))
    ratio = np.where(rates == 0, time, np.expm1(time * rates) / np.where(rates == 0, 1, rates))
    expected = np.exp(time * rates[:9]) * start + (ratio[:, None] * drive)[:9] @ action
    np.testing.assert_allclose(found[:9], expected, atol=1e-5 * small)


def test_halving_the_sub_step_makes_the_error_sixteen_times_less() -> None:
    fields, action = attractor(22.0, 64)[:32].astype(float), [0.5] * 4
    plants = [kuramoto_sivashinsky(dt=5 / count, substeps=count) for count in (50, 100, 400)]
    *found, best = (solve(plant, fields, action) for plant in plants)
    coarse, usual = (np.linalg.norm(field - best) / np.linalg.norm(best) for field in found)
    assert 7 < coarse / usual < 20
    assert usual < 3e-6


def test_energy_grows_by_power_less_dissipation() -> None:
    rng = np.random.default_rng(0)
    for environment, tolerance in ((KuramotoSivashinsky(), 1e-4), (Burgers(), 3e-5)):
        plant = environment.plant
        before = spectral.to_modes(np, plant, environment.draw_fields(rng, 16))
        after, told = environment.transition(np, before, rng.uniform(-1, 1, (16, len(plant.jets))), 0)
        growth = (spectral.mean_squares(plant, after) - spectral.mean_squares(plant, before))[:, 0] / 2
        np.testing.assert_allclose(growth, plant.interval * (told["power"] - told["dissipation"]), atol=tolerance)
        assert np.abs(growth).max() > 30 * tolerance


def test_mean_squares_and_products_are_those_of_fields() -> None:
    plant = kuramoto_sivashinsky()
    x, k = np.arange(64) * 22 / 64, 2 * np.pi / 22 * 3
    fields = np.stack([1.5 + np.cos(k * x), 2 * np.sin(k * x)])
    modes = spectral.to_modes(np, plant, fields)
    np.testing.assert_allclose(
        spectral.mean_squares(plant, modes), [[2.75, k**2 / 2, k**4 / 2], [2, 2 * k**2, 2 * k**4]], rtol=1e-12
    )
    other = spectral.to_modes(np, plant, 3 + np.cos(k * x) - np.sin(k * x))
    np.testing.assert_allclose(spectral.mean_product(plant, modes, other), [5.0, -1.0], rtol=1e-12)


@pytest.mark.parametrize("points", [64, 66, 150])
def test_squares_have_no_aliases(points: int) -> None:
    """The kept modes of u^2 are the same on a grid of twice the points."""
    plant, fine = (kuramoto_sivashinsky(points=count) for count in (points, 2 * points))
    rng = np.random.default_rng(0)
    modes = rng.standard_normal(plant.modes) + 1j * rng.standard_normal(plant.modes)
    square, exact = (
        spectral.to_modes(np, p, spectral.to_field(np, p, modes * p.points) ** 2)[: plant.modes] / p.points
        for p in (plant, fine)
    )
    np.testing.assert_allclose(square, exact, atol=1e-12 * plant.modes)


def test_the_attractor_has_its_known_statistics() -> None:
    """In the mean, production is dissipation; published energy and exponent of L = 22."""
    plant = kuramoto_sivashinsky(dt=0.1, substeps=10)
    states = attractor(22.0, 64)
    assert states.shape == (2048, 64)
    modes, squares = spectral.to_modes(np, plant, states[:128].astype(float)), []
    for _ in range(100):
        modes = spectral.advance(np, plant, modes, np.zeros(plant.modes))[-1]
        squares.append(spectral.mean_squares(plant, modes).mean(axis=0))
    energy, production, dissipation = np.mean(squares, axis=0)
    assert production == pytest.approx(dissipation, rel=0.02)
    assert energy == pytest.approx(1.39, rel=0.03) and production == pytest.approx(0.902, rel=0.03)
    now = spectral.mean_squares(plant, spectral.to_modes(np, plant, states.astype(float))).mean(axis=0)
    np.testing.assert_allclose(now, [energy, production, dissipation], rtol=0.05)
    assert 0.043 < lyapunov_exponent(plant, states[:64], 300) < 0.053


# --- the jets and the controllers ---


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, [[0.0571, 0.0571], [0.0792, 0.0], [0.0542, 0.0542]]),
        ({"periodic_jets": False}, [[0.0572, 0.0487], [0.0737, 0.0032], [0.0546, 0.0462]]),
        ({"jets": [0, 0.19, 0.46, 0.77]}, [[0.0584, 0.0558], [0.0732, 0.0304], [0.0626, 0.0443]]),
        ({"jets": 5}, [[0.0639, 0.0639], [0.0626, 0.0626], [0.0606, 0.0606]]),
        ({"jets": 8}, [[0.0808, 0.0808], [0.0792, 0.0792], [0.0767, 0.0767]]),
    ],
)
def test_four_jets_reach_one_phase_of_the_second_mode_only(options: dict[str, Any], values: list[list[float]]) -> None:
    environment = KuramotoSivashinsky(**options)
    _, drive = controllers.linear_model(environment.plant)
    found = [np.linalg.svd(drive[2 * n - 1 : 2 * n + 1], compute_uv=False) for n in (1, 2, 3)]
    np.testing.assert_allclose(found, values, atol=6e-5)
    if not options:
        with pytest.raises(LegatoError, match=r"4 jets of .* cannot hold u = 0: a mode grows of which"):
            controllers.lqr(environment, np.zeros(64))


RETURNS: list[tuple[str, controllers.Controller, dict[str, Any], float, float]] = [
    ("zero", controllers.zero, {}, -557, 33),
    ("zero", controllers.zero, {"reward": "dissipation"}, -721, 55),
    ("damping", controllers.damping, {}, -352, 25),
    ("damping", controllers.damping, {"reward": "dissipation"}, -412, 45),
    ("damping", controllers.damping, {"periodic_jets": False}, -357, 25),
    ("damping", controllers.damping, {"jets": 8}, -25, 9),
    ("LQR", controllers.lqr, {"jets": 8}, -17, 9),
    ("LQR", controllers.lqr, {"jets": 8, "reward": "dissipation"}, -20, 9),
]


@pytest.mark.parametrize(("name", "controller", "options", "mean", "deviation"), RETURNS)
def test_controllers_earn_what_is_known(
    name: str, controller: controllers.Controller, options: dict[str, Any], mean: float, deviation: float
) -> None:
    """Within three standard errors, of 32 episodes here and as many there."""
    found, last = controllers.play_batch(KuramotoSivashinsky(**options), controller, 32, seed=2)
    assert abs(found.mean() - mean) < 3 * np.sqrt((found.var() + deviation**2) / 32)
    calm = (last**2).mean(axis=-1) < 1e-2
    assert calm.all() if options.get("jets") == 8 else not calm.any()


def test_controllers_of_burgers_earn_what_is_known() -> None:
    for controller, mean, deviation in (
        (controllers.zero, -42.3, 7.0),
        (lambda environment, observation: np.ones((len(observation), 2)), -20.3, 0.3),
        (controllers.proportional, -9.2, 1.4),
    ):
        found, _ = controllers.play_batch(Burgers(), controller, 32)
        assert abs(found.mean() - mean) < 3 * np.sqrt((found.var() + deviation**2) / 32)


def test_a_batch_is_played_as_episodes_are_one_by_one() -> None:
    cases: list[tuple[Any, Any]] = [(Burgers(), controllers.proportional)]
    cases += [(KuramotoSivashinsky(jets=8, horizon=30), controllers.lqr)]
    for environment, controller in cases:
        returns, last = controllers.play_batch(environment, controller, 2, seed=3)
        fields = environment.draw_fields(np.random.default_rng(3), 2)
        for field, expected, final in zip(fields, returns, last, strict=True):
            observation, total, over = environment.reset(options={"field": field})[0], 0.0, False
            while not over:
                observation, reward, _, over, info = environment.step(controller(environment, observation))
                total += reward
            assert total == pytest.approx(expected, rel=1e-4)
            np.testing.assert_allclose(info["field"], final, atol=1e-4)


def test_who_reads_the_whole_field_says_so() -> None:
    with pytest.raises(LegatoError, match="8 numbers of 64 points are observed: leave out sensors"):
        controllers.damping(KuramotoSivashinsky(sensors=8), np.zeros(8))


# --- the same in NumPy and JAX ---


def test_numpy_and_vmapped_jax_are_one_plant_in_both_precisions() -> None:
    environment, rng = KuramotoSivashinsky(reward="dissipation"), np.random.default_rng(0)
    start = spectral.to_modes(np, environment.plant, environment.draw_fields(rng, 8))
    actions = rng.uniform(-1, 1, (20, 8, 4))  # 5 units of time
    modes, rewards = start, []
    for action in actions:
        modes, told = environment.transition(np, modes, action)
        rewards.append(told["reward"])
    last = spectral.to_field(np, environment.plant, modes)

    for double, tolerance in ((False, 1e-4), (True, 1e-10)):

        def turn(modes: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
            modes, told = jax.vmap(partial(environment.transition, jnp))(modes, action)
            return modes, told["reward"]

        with jax.enable_x64(double):
            found, earned = jax.jit(partial(jax.lax.scan, turn))(jnp.asarray(start), jnp.asarray(actions))
            field = np.asarray(spectral.to_field(jnp, environment.plant, found))
            assert field.dtype == (np.float64 if double else np.float32)
        assert np.abs(field - last).max() < tolerance * np.abs(last).max()
        np.testing.assert_allclose(earned, rewards, atol=10 * tolerance)


def test_the_known_reward_is_that_of_a_step_s_ends() -> None:
    rng = np.random.default_rng(1)
    for reward, tolerance in (("l2", 0.005), ("dissipation", 0.03)):
        environment = KuramotoSivashinsky(reward)
        plant, known = environment.plant, environment.known_reward
        assert known is not None
        before = environment.draw_fields(rng, 64)
        action = rng.uniform(-1, 1, (64, 4))
        modes, told = environment.transition(np, spectral.to_modes(np, plant, before), action)
        after = spectral.to_field(np, plant, modes)
        found = known(before, action, after)
        assert np.abs(found - told["reward"]).max() < tolerance < 0.2 * found.std()
        if reward == "l2":
            np.testing.assert_allclose(found, -((before**2) + after**2).mean(axis=-1) / 2)
        one = jax.jit(jax.vmap(known))(*(jnp.asarray(a, jnp.float32) for a in (before, action, after)))
        np.testing.assert_allclose(one, found, rtol=1e-4)
    field = Burgers()
    observation, _ = field.reset(seed=0)
    following, reward, *_ = field.step([0.3, -0.8])
    known = field.known_reward
    assert known is not None and float(known(observation, np.zeros(2), following)) == pytest.approx(reward, rel=1e-5)


@pytest.mark.parametrize("options", [{"sensors": 32}, {"sensor_noise": 0.1}, {"history": 2}])
def test_what_is_not_seen_is_not_known(options: dict[str, Any]) -> None:
    for kind in (KuramotoSivashinsky, Burgers):
        sizes = {"sensors": 75} if "sensors" in options and kind is Burgers else options
        assert kind(**sizes).known_reward is None and kind(**sizes).known_termination is None


# --- as environments ---


def test_a_shift_by_a_quarter_of_the_domain_moves_the_jets_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for reward in ("l2", "dissipation"):
        environment = KuramotoSivashinsky(reward)
        field, action = environment.draw_fields(rng, 16), rng.uniform(-1, 1, (16, 4))
        cases = {
            "as it is": (field, action),
            "shifted": (np.roll(field, 16, axis=1), np.roll(action, 1, axis=1)),
            "reflected": (-field[:, -np.arange(64)], -action[:, -np.arange(4)]),
        }
        found = {}
        for name, (u, a) in cases.items():
            _, told = environment.transition(np, spectral.to_modes(np, environment.plant, u), a)
            found[name] = told["reward"]
        for name in ("shifted", "reflected"):
            np.testing.assert_allclose(found[name], found["as it is"], atol=1e-10)
        halved = KuramotoSivashinsky(reward, periodic_jets=False)
        one, two = (
            halved.transition(np, spectral.to_modes(np, halved.plant, u), a)[1]["reward"]
            for u, a in (cases["as it is"], cases["shifted"])
        )
        assert np.abs(one - two).max() > 1e-3


def test_episodes_begin_on_the_attractor_shifted_and_reflected() -> None:
    states = attractor(22.0, 64)
    kept = spectral.to_field(np, kuramoto_sivashinsky(), spectral.to_modes(np, kuramoto_sivashinsky(), states))
    ways = []
    for field in KuramotoSivashinsky().draw_fields(np.random.default_rng(0), 60):
        images = [np.roll(u, -16 * by) for by in range(4) for u in (field, -field[-np.arange(64)])]
        apart = np.array([np.abs(kept - image).max(axis=1).min() for image in images])
        assert apart.min() < 1e-6 and np.sort(apart)[1] > 1e-3
        ways.append(int(apart.argmin()))
    assert set(ways) == set(range(8))
    for field in KuramotoSivashinsky(periodic_jets=False).draw_fields(np.random.default_rng(0), 20):
        assert np.abs(kept - field).max(axis=1).min() < 1e-6


def test_the_first_jet_of_the_published_code_is_half_a_jet() -> None:
    wrapped, half = (KuramotoSivashinsky(periodic_jets=periodic).plant.jets for periodic in (True, False))
    np.testing.assert_allclose(wrapped.sum(axis=1) * 22 / 64, np.sqrt(0.4), rtol=1e-6)
    np.testing.assert_allclose(wrapped.max(axis=1), 0.6308, atol=1e-4)
    np.testing.assert_allclose(half.sum(axis=1) * 22 / 64, [0.425, *[np.sqrt(0.4)] * 3], atol=1e-3)


def test_sensors_noise_and_history() -> None:
    whole, few = KuramotoSivashinsky(), KuramotoSivashinsky(sensors=8, history=3, sensor_noise=0.0)
    seen = [environment.reset(seed=4)[0] for environment in (whole, few)]
    np.testing.assert_array_equal(seen[1].reshape(3, 8), np.tile(seen[0][4::8], (3, 1)))
    fields = [seen[0][4::8]]
    for _ in range(2):
        observation, *_ = few.step(np.ones(4))
        fields.append(whole.step(np.ones(4))[0][4::8])
    np.testing.assert_array_equal(observation.reshape(3, 8), fields)
    noisy = KuramotoSivashinsky(sensor_noise=0.5)
    noisy.reset(seed=0)
    noise = np.array([o - info["field"] for o, *_, info in (noisy.step(np.zeros(4)) for _ in range(50))])
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * noise.size) and abs(noise.mean()) < 4 * 0.5 / noise.size**0.5


def test_what_is_told_of_a_step_and_the_end_at_the_horizon() -> None:
    for reward in ("l2", "dissipation"):
        environment = make(NAME, reward=reward, horizon=3)
        environment.reset(seed=0)
        for number in range(3):
            observation, earned, terminated, truncated, info = environment.step(np.full(4, 0.5))
            assert (terminated, truncated) == (False, number == 2)
            np.testing.assert_array_equal(observation, info["field"].astype(np.float32))
            if reward == "dissipation":
                assert earned == pytest.approx(-info["dissipation"] - info["power"], rel=1e-6)
            else:
                assert earned == pytest.approx(-(info["field"] ** 2).mean(), rel=0.1)


def test_a_field_that_leaves_its_bounds_ends_the_episode() -> None:
    for amplitude in (1000.0, 1e300):
        environment = KuramotoSivashinsky(amplitude=amplitude)
        before, _ = environment.reset(seed=0)
        observation, reward, terminated, truncated, _ = environment.step(np.ones(4))
        assert (reward, terminated, truncated) == (-1000.0, True, False)
        assert np.isfinite(observation).all() and np.abs(observation).max() == 40
    terminates = KuramotoSivashinsky().known_termination
    assert terminates is not None
    after = np.stack([before, 0 * before + 20.1, before * np.nan])
    assert terminates(before, np.ones(4), after).tolist() == [False, True, True]
    assert jax.vmap(terminates, (None, None, 0))(before, np.ones(4), jnp.asarray(after)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"N": 10**9}, "`N` of .* is a whole number from 16 to 4096; 1000000000 was given"),
        ({"N": 64.0}, "`N` of .* is a whole number"),
        ({"N": 65}, "`N` of .* is even; 65 was given"),
        ({"sensors": 7}, "7 `sensors` of .* do not fit the grid: a divisor of N=64 is needed"),
        ({"jets": 33}, "33 `jets` do not fit the grid of .*: a number from 1 to 32, half of N, is needed"),
        ({"jets": [0, 1.2]}, r"`jets` of .* are a number or places from 0 to 1; \[0, 1.2\] was given"),
        ({"sigma": 0.1}, "0.344 between the points of .* is too much for sigma=0.1, L=22: at least N=220 is needed"),
        ({"L": 88.0, "sigma": 20.0}, "1.38 between the points of .* at least N=88 is needed"),
        ({"reward": "L2"}, "`reward` of .* is 'l2' or 'dissipation'; 'L2' was given"),
        ({"dt": 0.2}, "`dt` of .* is a positive number of at most 0.1; 0.2 was given"),
        ({"dt": "0.1"}, "`dt` of .* is a positive number of at most 0.1; '0.1' was given"),
        ({"horizon": 0}, "`horizon` of .* is a whole number from 1"),
        ({"sensor_noise": -1.0}, "`sensor_noise` of .* is a number of at least 0; -1.0 was given"),
        ({"amplitude": 0}, "`amplitude` of .* is a positive number; 0 was given"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=words) as refused:
        make(NAME, **options)
    assert "\n" not in str(refused.value)


def test_a_field_to_begin_with_has_the_grid_s_points_and_bounds() -> None:
    for field in (np.zeros(63), np.full(64, 21.0), np.full(64, np.nan)):
        with pytest.raises(LegatoError, match=r"a field to begin .* with has 64 numbers of at most 20; shape"):
            KuramotoSivashinsky().reset(options={"field": field})
    with pytest.raises(LegatoError, match=r"`nu` of .* is a number from 0.005 to 1; 0 was given"):
        make("legato/Burgers-v0", nu=0)
