"""Policies that learn mostly from imagined steps: MBPO, CMLO, MOPO."""
