"""`unsee forget --dry-run`: what would be done and what it would take; nothing is written."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from unsee.cli.session import print_json, progress
from unsee.sources import place_of, sketch_of

if TYPE_CHECKING:
    from unsee.recipe import Recipe
    from unsee.requests import Request
    from unsee.settings import Settings


def dry_run(recipe: "Recipe", method: "Settings", *, quiet: bool, as_json: bool) -> None:
    """Print the plan of a run, predicted time and peak memory.

    Raises:
        ConfigError: As the run itself would.
        DataError: Likewise, but for what only asking the base shows.
    """
    from unsee.erasers.protocol import Fits
    from unsee.forecast import forecast
    from unsee.method import Surgery
    from unsee.models.load import outline
    from unsee.train import may_change

    asked = sketch_of(recipe)
    found = None
    if isinstance(method, Surgery):
        # Only the shapes are looked at: the parts that it names are there.
        with progress(quiet=quiet) as report:
            place = place_of(recipe.model, report)
        may_change(outline(place, device="meta"), method)
    elif not isinstance(method, Fits):
        with progress(quiet=quiet) as report:
            place = place_of(recipe.model, report)
            found = forecast(place, asked.split, method, seed=recipe.seeds[0], progress=report)
    if as_json:
        table = {"recipe": recipe.model_dump(mode="json"), "subjects": list(asked.subjects)}
        print_json(table | {"forecast": None if found is None else asdict(found)})
        return
    for line in _plan(recipe, asked):
        typer.echo(line)
    if found is None:
        typer.echo("time and memory: not predicted for methods that train nothing")
        return
    runs = f"{len(recipe.seeds)} runs of " if len(recipe.seeds) > 1 else ""
    parts = found.trained_parameters, found.parameters
    typer.echo(f"steps: {runs}{found.steps}")
    typer.echo(f"trained: {parts[0]:,} numbers; the model has {parts[1]:,}")
    typer.echo(f"time: {_duration(found.wall_s)} a run, {_duration(found.prepare_s)} before step 1")
    typer.echo(f"peak memory: {found.peak_rss_mb:,.0f} MB")
    if found.peak_gpu_mb is not None:
        typer.echo(f"peak memory on the GPU: {found.peak_gpu_mb:,.0f} MB")
    typer.echo(_how(found.depth, found.whole))


def _plan(recipe: "Recipe", asked: "Request") -> list[str]:
    split = asked.split
    photos = {record.image for record in split.forget if record.image is not None}
    return [
        f"forget: {', '.join(asked.subjects)} ({len(photos)} photos, {len(split.forget)} "
        f"questions; scope {asked.scope})",
        f"keep: {len(split.retain)} questions on other people, {len(split.general)} on strangers "
        f"and the like, {len(split.visible)} on what is visible",
        f"method: {recipe.method['name']}, into {recipe.out}",
    ]


def _how(depth: tuple[int, int], whole: tuple[int, int]) -> str:
    seen = "of the whole model" if depth == whole else "of {} of {} layers and {} of {} blocks"
    seen = seen.format(depth[0], whole[0], depth[1], whole[1])
    return (
        f"predicted from a few real steps {seen} with random weights on this machine; loading the "
        "model and asking it first come on top"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
