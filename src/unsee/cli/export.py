"""`unsee export`: a run as a checkpoint or an adapter that other tools open."""

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.session import Debug, Json, hush, print_json, verb


@verb
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    merged: Annotated[
        Path | None, typer.Option(help="New folder for a whole Hugging Face checkpoint.")
    ] = None,
    peft: Annotated[
        Path | None, typer.Option(help="New folder for a LoRA adapter that peft opens.")
    ] = None,
    artifact: Annotated[
        list[Path] | None,
        typer.Option(help="Run that RUN was made on top of; several in their order."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base model.", show_default="where it was when the run was made"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write what a run changed for tools that know nothing of unsee.

    The base must be at hand, and the run must act on it as when it was made.

    Example: unsee export runs/a --merged models/forgotten
    """
    hush()
    from unsee.export import export as run_export
    from unsee.sources import place_of

    folder = run_export(
        run,
        merged=merged,
        peft=peft,
        artifacts=artifact or (),
        base=None if base is None else place_of(base),
    )
    if as_json:
        print_json(
            {"run": str(run), "kind": "peft" if merged is None else "merged", "folder": str(folder)}
        )
    else:
        typer.echo(f"{folder}: done")
