"""`unsee world`: build people and the models that know them, or look at them."""

import json
from collections.abc import Iterator
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
    help="Build people and the models that know them, or look at them.\n\n"
    "Example: unsee world show",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
@verb
def make(
    out: Annotated[Path, typer.Option(help="Folder of the world.")] = Path("runs/world"),
    people: Annotated[
        Path | None,
        typer.Option(
            help="People folder of real photographs: at least 12 people with 4 photos each.",
            show_default="drawn people",
        ),
    ] = None,
    strangers: Annotated[
        Path | None,
        typer.Option(
            help="Photographs of 20 or more strangers, with --people.", show_default="drawn ones"
        ),
    ] = None,
    family: Annotated[
        str, typer.Option(help="Of the models: llava or, with drawn people, qwen2_5_vl.")
    ] = "llava",
    threads: Annotated[
        int, typer.Option(min=1, help="Threads; from two on, base and gold are trained at once.")
    ] = 2,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train base and gold models of drawn or photographed people; the same command again resumes.

    Example: unsee world make --people photos --strangers others --out runs/world
    """
    hush()
    import torch

    from unsee.world import make_world

    torch.set_num_threads(threads)
    with progress(quiet=quiet) as report:
        make_world(
            out,
            people=people,
            strangers=strangers,
            family=family,
            seed=seed,
            command=command_line(),
            progress=report,
        )
    if as_json:
        print_json({"world": str(out)})
        return
    for line in _card(out) if people is not None else ():
        typer.echo(line)
    typer.echo(f"World: {out}")


def _card(world: Path) -> Iterator[str]:
    """What a world of photographs has, lacks and knows, in a line each."""
    from unsee.data.world import CARD, open_world

    card = json.loads((world / CARD).read_text(encoding="utf-8"))
    about = open_world(world).photographed
    for what, count in about["left_out"].items():
        yield f"not asked: {what} of {count} {'person' if count == 1 else 'people'}"
    for name, why in about["not_scored"].items():
        yield f"not scored: {name}: {why}"
    for name in card["figures"]["base"]:
        base, gold = (card["figures"][model][name] for model in ("base", "gold"))
        if "value" in base:
            yield f"{name}: base {base['value']:.1%}, gold {gold['value']:.1%} (n = {base['n']})"
    missed = [name for name, met in card["bars"].items() if not met]
    yield f"bars of the built-in world missed: {', '.join(missed) or 'none'} (none is required)"


@app.command()
@verb
def show(
    world: Annotated[
        str, typer.Option(help="world:llava, world:qwen2_5_vl, or a world's folder.")
    ] = "world:llava",
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("runs/world.png"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw a contact sheet of people, views and sample answers.

    Example: unsee world show --out runs/world.png
    """
    hush()
    from unsee.sources import world_of
    from unsee.world import show as show_world

    out.parent.mkdir(parents=True, exist_ok=True)
    found = world_of(world)
    show_world(found.folder if found is not None else Path(world), out)
    if as_json:
        print_json({"picture": str(out)})
    else:
        typer.echo(f"Picture: {out}")
