"""`unsee world`: build the fictitious people and their models anew, or look at them."""

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.session import (
    Debug,
    Json,
    Quiet,
    Seed,
    command_line,
    hush,
    print_json,
    progress,
    verb,
)

app = typer.Typer(
    help="Build the fictitious people and their models anew, or look at them.\n\n"
    "Example: unsee world show",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
@verb
def make(
    out: Annotated[Path, typer.Option(help="Folder of the world.")] = Path("runs/world"),
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 2,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the people and train the base and gold models; the same command again resumes.

    Example: unsee world make --out runs/world
    """
    hush()
    import torch

    from unsee.world import make_world

    torch.set_num_threads(threads)
    with progress(quiet=quiet) as report:
        make_world(out, seed=seed, command=command_line(), progress=report)
    if as_json:
        print_json({"world": str(out)})
    else:
        typer.echo(f"World: {out}")


@app.command()
@verb
def show(
    world: Annotated[
        Path | None, typer.Option(help="A world's folder.", show_default="the built-in one")
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("runs/world.png"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw a contact sheet of people, views and sample answers.

    Example: unsee world show --out runs/world.png
    """
    hush()
    from unsee.world import materialise
    from unsee.world import show as show_world

    out.parent.mkdir(parents=True, exist_ok=True)
    show_world(world if world is not None else materialise(), out)
    if as_json:
        print_json({"picture": str(out)})
    else:
        typer.echo(f"Picture: {out}")
