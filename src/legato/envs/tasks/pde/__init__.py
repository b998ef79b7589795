"""Plants that are partial differential equations on a line, and controllers of them that need no learning."""

from __future__ import annotations

from legato.envs.tasks.pde import controllers, spectral
from legato.envs.tasks.pde.burgers import BURGERS, Burgers
from legato.envs.tasks.pde.environment import FieldEnvironment
from legato.envs.tasks.pde.kuramoto_sivashinsky import (
    EIGHT_JETS,
    KURAMOTO_SIVASHINSKY,
    KuramotoSivashinsky,
    attractor,
)

__all__ = [
    "BURGERS",
    "EIGHT_JETS",
    "KURAMOTO_SIVASHINSKY",
    "Burgers",
    "FieldEnvironment",
    "KuramotoSivashinsky",
    "attractor",
    "controllers",
    "spectral",
]
