"""`unsee demo`: the built-in world, one draw, the default method, end to end."""

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

MODEL = "world:llava"
SUBJECT = "world:A"


@verb
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    seed: Seed = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew, whatever is in the folder.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a small model forget four drawn people, and report what is left.

    Needs no download and at most five minutes. The people are fictitious, so their photos are in
    the report.

    Example: unsee demo --open
    """
    hush()
    from unsee.audit import audit
    from unsee.cli.audit import show, summary_of
    from unsee.cli.references import gold_of, open_model, request_of
    from unsee.forget import forget
    from unsee.recipe import read_recipe

    given = {"model": MODEL, "subject": SUBJECT, "seeds": [seed], "out": str(out)}
    recipe, method = read_recipe(None, given)
    with progress(quiet=quiet) as report:
        vlm = open_model(MODEL, report)
        request = request_of(recipe, vlm, run=out, force=False, report=report)
        run = forget(
            vlm,
            request,
            method=method,
            seed=seed,
            out=out,
            command=command_line(),
            progress=report,
            overwrite=overwrite,
        )
        result = audit(
            vlm,
            request,
            artifact=run,
            gold=open_model(gold_of(MODEL) or MODEL),
            out=out,
            seed=seed,
            command=command_line(),
            embed_photos=True,
            progress=report,
        )
    page = out / "report.html"
    if as_json:
        print_json(summary_of(result, out))
    else:
        show(result)
        typer.echo(f"Report: {page}")
    if open_:
        typer.launch(str(page))
