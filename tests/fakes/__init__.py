"""Algorithms of one number, for tests of the loops: they compile in a moment, and say what was asked of them."""
