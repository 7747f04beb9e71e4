"""`unsee demo`: the built-in world, one draw, the default method and the eraser, end to end."""

from pathlib import Path
from typing import Annotated, Any

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
ERASER = "mllmeraser"


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

    Once by training, and beside it by an eraser at test time, which leaves the weights alone; its
    report lies in a second folder. Needs no download and at most five minutes. The people are
    fictitious, so their photos are in the reports.

    Example: unsee demo --open
    """
    hush()
    from unsee.audit import audit
    from unsee.cli.audit import show, summary_of
    from unsee.forget import forget
    from unsee.recipe import read_recipe
    from unsee.sources import gold_of, open_model, request_of

    given = {"model": MODEL, "subject": SUBJECT, "seeds": [seed], "out": str(out)}
    recipe, method = read_recipe(None, given)
    _, eraser = read_recipe(None, {**given, "method": {"name": ERASER}})
    beside = out.with_name(f"{out.name}-{ERASER}")
    results = []
    with progress(quiet=quiet) as report:
        vlm = open_model(MODEL, report)
        gold = open_model(gold_of(MODEL) or MODEL)
        request = request_of(recipe, vlm, run=out, force=False, report=report)
        for settings, folder in ((method, out), (eraser, beside)):
            run = forget(
                vlm,
                request,
                method=settings,
                seed=seed,
                out=folder,
                command=command_line(),
                progress=report,
                overwrite=overwrite,
            )
            results.append(
                audit(
                    vlm,
                    request,
                    artifact=run,
                    gold=gold,
                    out=folder,
                    cache=out,
                    seed=seed,
                    command=command_line(),
                    embed_photos=True,
                    progress=report,
                )
            )
    page = out / "report.html"
    if as_json:
        print_json({**summary_of(results[0], out), ERASER: summary_of(results[1], beside)})
    else:
        show(results[0])
        _side_by_side(results)
        typer.echo(f"Report of the eraser: {beside / 'report.html'}")
        typer.echo(f"Report: {page}")
    if open_:
        typer.launch(str(page))


def _side_by_side(results: list[Any]) -> None:
    """A row a method."""
    from rich.console import Console
    from rich.table import Table

    from unsee.report import wording

    sets = ("forget_seen", "forget_unseen")
    # No wider than 80 columns, in which a verdict does not break.
    table = Table("left by", "given photos", "others", "keep", "took", "verdict", box=None)
    for result in results:
        cells = [wording.value_or_reason(result.model("erased").cell(name)) for name in sets]
        keep, took = wording.figure(result.summary.keep), wording.duration(result.cost.wall_s)
        table.add_row(result.method.name, *cells, keep, took, result.verdict.rung)
    Console().print(table)
