"""`unsee compare`: many methods on the same people and seeds, as one table."""

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.session import Debug, Json, Quiet, command_line, hush, print_json, progress, verb


@verb
def compare(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/world.toml.")],
    rows: Annotated[
        str | None, typer.Option(help="Only these rows, names with commas.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs.", show_default="the recipe's")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="The table's files, without ending.", show_default="in --out"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once.", show_default="2, or 1 with a GPU"),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run every method of a recipe on every draw with its seed, and write one table.

    What is done is not done again, so the same command goes on after an interruption. A method
    that cannot run is named in the table and the others go on.

    Example: unsee compare recipes/world.toml --rows none,vkd
    """
    from unsee.lineup import read_comparison, run

    lineup = read_comparison(
        recipe,
        {
            "out": None if out is None else str(out),
            "results": None if results is None else str(results),
        },
        rows=None if rows is None else [name.strip() for name in rows.split(",")],
    )
    hush()
    with progress(quiet=quiet) as report:
        failed = run(lineup, jobs=jobs or _usual_jobs(), progress=report)
    from unsee.compare import Table
    from unsee.report.comparison import write

    content = Table(lineup, failed).content(command_line())
    stem = Path(lineup.comparison.results or lineup.out / "comparison")
    files = write(content, stem)
    if as_json:
        print_json(
            {
                "table": str(files[0]),
                "ranking": content["ranking"],
                "scores": {
                    row: found["summary"]["score"] for row, found in content["rows"].items()
                },
                "failed": content["failed"],
            }
        )
    else:
        _show(content)
        typer.echo(f"Table: {files[2]}")


def _usual_jobs() -> int:
    """Runs at once: small models leave one core of two idle, on a GPU one fills it."""
    import os

    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def _show(content: dict) -> None:
    """The ranking on stdout."""
    from rich.console import Console
    from rich.table import Table

    from unsee.report.comparison import failures, grids

    ranking = next(iter(grids(content)))
    table = Table(*ranking.head[:6], box=None)
    for row in ranking.rows:
        table.add_row(*row[:6])
    console = Console()
    console.print(table)
    for line in failures(content):
        console.print(f"no figures: {line}", highlight=False)
