"""How learning is run: the loops, the run folder, checkpoints, saved policies, progress."""
