"""`legato collect`: a policy's episodes as a dataset."""

from __future__ import annotations

from typing import Annotated, Literal

from legato.cli.options import EnvOption, parse_every, values
from legato.cli.parsing import Positional, call
from legato.errors import plain, quantity


def collect(
    source: Annotated[str, Positional],
    out: str,
    steps: int | None = None,
    replay: bool = False,
    which: Literal["last", "best", "start"] = "last",
    run_seed: int | None = None,
    env: str | None = None,
    env_option: EnvOption = (),
    max_episode_steps: int | None = None,
    every: str | None = None,
    greedy: bool = False,
    random: bool = False,
    environments: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Play a policy and write its episodes as a dataset, or export what a run kept in its replay buffer.

    Args:
        source: the run folder, or the folder of one policy
        out: a new .npz or .hdf5 file, .arrays folder, or Minari id such as mine/hopper/medium-v0
        steps: primitive steps to play; the episode that the last one falls into is cut and counts as truncated
        replay: play nothing; write the replay buffer of the run's newest checkpoint
        which: the policy at the end of training, the one that evaluated best on the way, or what a fine-tuning began
            with
        run_seed: which of the run's seeds; by default the first
        env: the environment to play in; by default the one that the policy was trained in
        env_option: an argument of the environment's constructor, instead of the run's; once for each
        max_episode_steps: primitive steps after which an episode is truncated; by default the run's
        every: primitive steps per decision, or `policy` for as many as it says; by default as in training
        greedy: the policy's best action always; otherwise it draws, as in training
        random: uniformly random actions instead of the policy's
        environments: environments played side by side; the last episode of each is cut
        seed: episodes and draws derive from it
        quiet: show no progress
    """
    from legato import api

    data = api.collect(
        source,
        steps,
        out,
        replay=replay,
        which=which,
        run_seed=run_seed,
        env=env,
        env_options=values(env_option),
        max_episode_steps=max_episode_steps,
        every=parse_every(every),
        greedy=greedy,
        random=random,
        environments=environments,
        seed=seed,
        quiet=quiet,
    )
    print(plain(f"{out}: {quantity(len(data), 'episode')}, {quantity(data.steps, 'step')}"))


def run(args: list[str]) -> None:
    call(collect, args, "legato collect")
