"""`legato attention`: what a transformer's predictions attend to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from legato.cli.options import next_free_path
from legato.cli.parsing import Positional, call
from legato.errors import plain


def attention(
    run: Annotated[str, Positional],
    dataset: str | None = None,
    episode: int = 0,
    step: int | None = None,
    context: int | None = None,
    layer: tuple[int, ...] = (),
    head: tuple[int, ...] = (),
    out: Path | None = None,
    which: Literal["last", "best"] = "last",
    seed: int | None = None,
) -> None:
    """Show what the predictions of a tt, dt or odt run attend to in a window of logged experience.

    Args:
        run: the run folder
        dataset: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset; by default the run's own
        episode: number of the dataset's episode, from 0
        step: the window's last step; by default the episode's middle one
        context: steps of the window; by default as many as the policy reads
        layer: which layers the figure shows, from 1; by default all
        head: which heads the figure shows, from 1; by default all
        out: where to draw (.png, .svg or .pdf), a new file; by default the first free attention.png, attention-2.png,
            ...
        which: the policy at the end of training, or the one that evaluated best on the way
        seed: which of the run's seeds; by default the first
    """
    figure = next_free_path(out, "attention.png")

    from legato import api
    from legato.evaluation.attention import table
    from legato.evaluation.report import table_console

    chosen = {"dataset": dataset, "episode": episode, "step": step, "context": context}
    found = api.attention(run, figure, **chosen, layers=layer, heads=head, which=which, seed=seed)
    table_console().print(table(found))
    print(plain(f"drawn in {figure}"))


def run(args: list[str]) -> None:
    call(attention, args, "legato attention")
