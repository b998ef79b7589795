"""Unrolled soft actor-critic: plans that are written by asking a policy in imagined states."""
