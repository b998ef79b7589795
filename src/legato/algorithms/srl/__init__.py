"""Sequence Reinforcement Learning."""
