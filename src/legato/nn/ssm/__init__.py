"""State-space layers: one linear recurrence, seen as a convolution, a scan and a step.

    x'(t) = A x + B u,  y = C x + D u        A diagonal (S4D, S5) or diagonal less rank one (S4), stable by construction
    x_k = Abar x_{k-1} + Bbar u_k,  y_k = 2 Re(C x_k) + D u_k        2: one mode of each conjugate pair is kept

Zero-order hold: Abar = exp(dt A), Bbar = (exp(dt A) - 1) / A. Bilinear: Abar = (1 + dt A / 2) / (1 - dt A / 2),
Bbar = dt / (1 - dt A / 2). Complex numbers are pairs of real arrays throughout: ordinary optimisers are then right, and
a step can be exported. (Gu et al., "S4", arXiv 2111.00396; "S4D", 2206.11893; Smith et al., "S5", 2208.04933.)
"""

from __future__ import annotations

from legato.nn.ssm.complex import Complex
from legato.nn.ssm.diagonal import FEW, S4D, S5
from legato.nn.ssm.discrete import convolve, discretise
from legato.nn.ssm.initial import hippo, modes
from legato.nn.ssm.low_rank import S4
from legato.nn.ssm.parameters import groups
from legato.nn.ssm.scans import scan

__all__ = ["FEW", "S4", "S4D", "S5", "Complex", "convolve", "discretise", "groups", "hippo", "modes", "scan"]
