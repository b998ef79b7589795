"""Where experience comes from: Gymnasium environments, checked and seeded; EnvPool when installed and asked for."""

from legato.envs.environments import Environments, describe, known_ids, make, make_vec

__all__ = ["Environments", "describe", "known_ids", "make", "make_vec"]
