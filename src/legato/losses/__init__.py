"""What several algorithms minimise, and what they compare with: pure functions of numbers, networks and batches.

soft                  SAC's critics, actor and temperature
deterministic         TD3's critics and actor
temporal_difference   the target of a critic, and the error of two
returns               returns of several steps, and lambda-returns
imitation             what is imitated: squares, or cross-entropies of choices
means                 means over what counts
"""
