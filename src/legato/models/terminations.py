"""Where episodes end, for models that imagine: rules of the next observation, where they are known.

A rule is a pure function `(observation, action, next_observation) -> terminated`, of arrays `[..., obs]`, `[..., act]`
and `[..., obs]` to booleans `[...]`. It knows no time limits. Those here are read off the sources of Gymnasium 1.x:
classic control, and MuJoCo's tasks of versions 4 and 5. The published rules of model-based learning (Janner et al.
2019, MBPO) were written for older versions and differ where a docstring says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Obs = Float[Array, "*batch obs"]
Act = Float[Array, "*batch act"]
Ends = Bool[Array, "*batch"]
Rule = Callable[[Any, Any, Any], Any]
Range = Sequence[float]  # lower and upper end


def never_terminate(observation: Obs, action: Act, next_observation: Obs) -> Ends:
    """Of tasks whose episodes are only truncated."""
    return jnp.zeros(next_observation.shape[:-1], bool)


def terminate_hopper(
    observation: Obs,
    action: Act,
    next_observation: Obs,
    *,
    healthy_state_range: Range = (-100.0, 100.0),
    healthy_z_range: Range = (0.7, float("inf")),
    healthy_angle_range: Range = (-0.2, 0.2),
    exclude_current_positions_from_observation: bool = True,
) -> Ends:
    """Unless height, angle and all that follows the height lie strictly within their ranges.

    Gymnasium clips the observed velocities at 10, so that one beyond 100 cannot be seen: with the default range the
    rule says "no" where Gymnasium says "yes".
    """
    body = next_observation[..., 0 if exclude_current_positions_from_observation else 1 :]
    state = _within(body[..., 1:], healthy_state_range).all(axis=-1)
    return ~(state & _within(body[..., 0], healthy_z_range) & _within(body[..., 1], healthy_angle_range))


def terminate_walker2d(
    observation: Obs,
    action: Act,
    next_observation: Obs,
    *,
    healthy_z_range: Range = (0.8, 2.0),
    healthy_angle_range: Range = (-1.0, 1.0),
    exclude_current_positions_from_observation: bool = True,
) -> Ends:
    """Unless height and angle lie strictly within their ranges."""
    body = next_observation[..., 0 if exclude_current_positions_from_observation else 1 :]
    return ~(_within(body[..., 0], healthy_z_range) & _within(body[..., 1], healthy_angle_range))


def terminate_ant(
    observation: Obs,
    action: Act,
    next_observation: Obs,
    *,
    healthy_z_range: Range = (0.2, 1.0),
    exclude_current_positions_from_observation: bool = True,
) -> Ends:
    """Unless all is finite and the height is within its range, ends included."""
    height = next_observation[..., 0 if exclude_current_positions_from_observation else 2]
    finite = jnp.isfinite(next_observation).all(axis=-1)
    return ~(finite & (healthy_z_range[0] <= height) & (height <= healthy_z_range[1]))


def terminate_humanoid(
    observation: Obs,
    action: Act,
    next_observation: Obs,
    *,
    healthy_z_range: Range = (1.0, 2.0),
    exclude_current_positions_from_observation: bool = True,
) -> Ends:
    """Unless the height is strictly within its range. (MBPO includes its ends.)"""
    height = next_observation[..., 0 if exclude_current_positions_from_observation else 2]
    return ~_within(height, healthy_z_range)


def terminate_inverted_pendulum(observation: Obs, action: Act, next_observation: Obs) -> Ends:
    """Unless all is finite and the pole's angle is at most 0.2."""
    return ~(jnp.isfinite(next_observation).all(axis=-1) & (jnp.abs(next_observation[..., 1]) <= 0.2))


def terminate_inverted_double_pendulum(observation: Obs, action: Act, next_observation: Obs) -> Ends:
    """Where the tip is not above 1: its height is 0.6 cos(u) + 0.6 cos(u + v) of the joints' angles u and v.

    Observed are the sines of both and then their cosines, in places 1 to 4. Gymnasium takes the height from before
    MuJoCo's last update of the joints, which has differed by less than 1e-4.
    """
    sine, other_sine, cosine, other_cosine = (next_observation[..., i] for i in (1, 2, 3, 4))
    height = 0.6 * cosine + 0.6 * (cosine * other_cosine - sine * other_sine)
    return height <= 1


def terminate_mountain_car(observation: Obs, action: Act, next_observation: Obs, *, goal_velocity: float = 0.0) -> Ends:
    """Where the car is at 0.45 or beyond, at no less than the goal's velocity."""
    return (next_observation[..., 0] >= 0.45) & (next_observation[..., 1] >= goal_velocity)


RULES: Mapping[str, Rule] = {
    "Ant": terminate_ant,
    "HalfCheetah": never_terminate,
    "Hopper": terminate_hopper,
    "Humanoid": terminate_humanoid,
    "HumanoidStandup": never_terminate,
    "InvertedDoublePendulum": terminate_inverted_double_pendulum,
    "InvertedPendulum": terminate_inverted_pendulum,
    "MountainCarContinuous": terminate_mountain_car,
    "Pendulum": never_terminate,
    "Pusher": never_terminate,
    "Reacher": never_terminate,
    "Swimmer": never_terminate,
    "Walker2d": terminate_walker2d,
}
"""rules of Gymnasium's own tasks by their names without version; LunarLander's needs contacts and sleep, which are not
all observed"""

# Options of constructors that change rewards, starts, forces or pictures, or append to observations, but no rule.
HARMLESS = frozenset(
    {
        *("forward_reward_weight", "ctrl_cost_weight", "contact_cost_weight", "contact_cost_range", "healthy_reward"),
        *("contact_force_range", "use_contact_forces", "include_cfrc_ext_in_observation"),
        *("include_cinert_in_observation", "include_cvel_in_observation", "include_qfrc_actuator_in_observation"),
        *("reset_noise_scale", "frame_skip", "main_body", "terminate_when_unhealthy"),
        *("render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config", "max_geom"),
    }
)


def termination_rule(environment: Any) -> Rule | None:
    """The rule by which an environment's steps terminate; None where it is not known.

    The environment's own, a method `known_termination(observation, action, next_observation)`, if it has one;
    otherwise that of `RULES` for Gymnasium's own tasks, with the ranges that the environment was made with. None for
    another model (`xml_file`) or an option that is not known, for what was made without `gymnasium.make`, and within
    wrappers that may change observations or ends.
    """
    from legato.envs.known import unchanged  # brings Gymnasium

    inner, spec = unchanged(environment), getattr(environment, "spec", None)
    if (told := getattr(inner, "known_termination", None)) is not None:
        return told
    if inner is None or spec is None or spec.namespace is not None:
        return None
    rule = RULES.get(spec.name) if type(inner).__module__.startswith("gymnasium.envs.") else None
    if rule is None or rule is never_terminate:
        return rule
    if not spec.kwargs.get("terminate_when_unhealthy", True):
        return never_terminate  # whatever else was asked for
    if not spec.kwargs.keys() <= HARMLESS | _options(rule):
        return None
    changed = {name: value for name, value in spec.kwargs.items() if name in _options(rule)}
    return partial(rule, **changed) if changed else rule


def _options(rule: Rule) -> set[str]:
    """What a rule takes beside the step."""
    return {name for name, taken in inspect.signature(rule).parameters.items() if taken.kind is taken.KEYWORD_ONLY}


def _within(values: Any, ends: Range) -> Any:
    """Strictly; NaN is nowhere."""
    return (ends[0] < values) & (values < ends[1])
