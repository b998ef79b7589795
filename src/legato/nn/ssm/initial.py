"""Where the modes and the lengths of steps begin."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PRNGKeyArray

Spectrum = Literal["lin", "inv", "legs"]
ComplexArray = npt.NDArray[np.complex128]


def log_uniform(key: PRNGKeyArray, count: int, dt: tuple[float, float]) -> Float[Array, " count"]:
    """log dt, uniform between the logarithms of the bounds."""
    return jax.random.uniform(key, (count,), minval=np.log(dt[0]), maxval=np.log(dt[1]))


def hippo(order: int) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
    """(A, B, V) of HiPPO-LegS without its low-rank part, diagonalised: the modes of positive frequency, B = V* B_hippo.

    A_nk = -sqrt((2n + 1)(2k + 1)) below the diagonal and -(n + 1) on it; with P_n = sqrt(n + 1/2), A + P P^T is -1/2
    plus a skew matrix, whose eigenvectors are V.
    """
    n = np.arange(order)
    root = np.sqrt(2 * n + 1)
    a = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    p = np.sqrt(n + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(order)
    frequency, v = np.linalg.eigh(-1j * skew)
    positive = np.argsort(frequency)[order // 2 :]
    frequency, v = frequency[positive], v[:, positive]
    return -0.5 + 1j * frequency, v.conj().T @ root, v


def modes(order: int, spectrum: Spectrum) -> tuple[ComplexArray, ComplexArray]:
    """(A, B) of S4D's N/2 = order/2 modes: -1/2 + i pi n ("lin"), N/pi (N/(2n + 1) - 1) ("inv"), HiPPO's ("legs")."""
    n = np.arange(order // 2)
    if spectrum == "legs":
        a, b, _ = hippo(order)
        return a, b / 2
    frequency = np.pi * n if spectrum == "lin" else order / np.pi * (order / (2 * n + 1) - 1)
    return np.asarray(-0.5 + 1j * frequency, np.complex128), np.ones(order // 2, np.complex128)
