"""`unsee tune`: seeded trials of a method's settings, on people that serve choices alone."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.cli.session import (
    Dataset,
    Debug,
    General,
    Gold,
    Json,
    Quiet,
    RequestFile,
    Retain,
    Seed,
    Strangers,
    command_line,
    hush,
    print_json,
    progress,
    verb,
)


@verb
def tune(
    method: Annotated[
        str, typer.Argument(help="See `unsee list methods` and `unsee list erasers`.")
    ],
    model: Annotated[str, typer.Argument(help="Folder, hub name, or world:llava.")] = "world:llava",
    subject: Annotated[
        str | None,
        typer.Option(help="People to try on; not those of a report.", show_default="world:dev"),
    ] = None,
    request: RequestFile = None,
    dataset: Dataset = None,
    retain: Retain = None,
    general: General = None,
    strangers: Strangers = None,
    gold: Gold = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    questions: Annotated[int, typer.Option(min=8, help="Most open questions a set.")] = 160,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that is not searched, such as lora_rank=16."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trials.", show_default="runs/tune/METHOD")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Try settings of a method, and keep those that forget most and spoil least.

    Trials are judged by what is left of the people to forget and by what is left of everything
    else; the one with the highest score, their harmonic mean, is written down as a recipe. Nobody
    who was tried on may be reported on. The same command again goes on after an interruption.

    Example: unsee tune npo world:llava --trials 20
    """
    from unsee.recipe import component, read_recipe
    from unsee.settings import overrides

    chosen = component(method)
    given: dict[str, Any] = {
        "model": model,
        "subject": subject if subject or request or dataset else "world:dev",
        "request": request,
        "dataset": dataset,
        "retain": retain,
        "general": general,
        "strangers": strangers,
        "part": "dev",
        "seeds": [seed],
    }
    recipe, _ = read_recipe(None, given)
    folder = out or Path("runs/tune") / method
    hush()
    from dataclasses import replace

    from unsee.sources import gold_of, open_model, people_of, request_of
    from unsee.trials import with_bystanders
    from unsee.tune import tune as run_tune

    people = people_of(recipe)
    with progress(quiet=quiet) as report:
        vlm = open_model(model, report)
        asked = request_of(recipe, vlm, run=folder, force=False, report=report, people=people)
        if recipe.subject == "world:dev":
            asked = replace(asked, split=with_bystanders(asked.split))
        never = gold or gold_of(model)
        tuned = run_tune(
            vlm,
            asked,
            method=chosen,
            fixed=overrides(set_ or ()),
            trials=trials,
            seed=seed,
            gold=open_model(never) if never is not None else None,
            out=folder,
            questions=questions,
            progress=report,
        )
    from unsee.artifacts import atomic_write_text

    atomic_write_text(folder / "recipe.toml", recipe_text(tuned, model, command_line()))
    atomic_write_text(folder / "front.svg", _plot(tuned))
    if as_json:
        print_json(
            {
                "settings": tuned.settings,
                "summary": dict(tuned.knee.summary),
                "trials": len(tuned.trials),
                "without_figures": sum(trial.objectives is None for trial in tuned.trials),
                "recipe": str(folder / "recipe.toml"),
            }
        )
        return
    _show(tuned)
    typer.echo(f"Recipe: {folder / 'recipe.toml'}, plot: {folder / 'front.svg'}")


def _plot(tuned: Any) -> str:
    from unsee.report.plots import Point, many_gaps

    points = [
        Point(str(trial.number), *trial.objectives, chosen=trial is tuned.knee)
        for trial in tuned.trials
        if trial.objectives is not None
    ]
    return many_gaps(points, f"Trials of {tuned.job['method']}: forget gap against keep")


def _show(tuned: Any) -> None:
    """The Pareto front, the chosen trial marked, and what became of the others."""
    from rich.console import Console
    from rich.table import Table

    from unsee.report import wording

    table = Table("", "trial", "forget gap", "keep", "score", "settings", box=None)
    for trial in sorted(tuned.front, key=lambda trial: trial.summary["forget_gap"]):
        figures = [wording.figure(trial.summary[k]) for k in ("forget_gap", "keep", "score")]
        settings = " ".join(f"{name}={value}" for name, value in trial.settings.items())
        mark = "*" if trial is tuned.knee else ""
        table.add_row(mark, str(trial.number), *figures, settings)
    console = Console()
    console.print(table)
    without = [trial for trial in tuned.trials if trial.objectives is None]
    console.print(
        f"{len(tuned.trials)} trials, {len(tuned.front)} on the front, * the highest score; "
        f"{len(without)} without figures"
    )
    for trial in without:
        console.print(f"trial {trial.number}: {trial.without}", highlight=False)


def recipe_text(tuned: Any, model: str, command: str) -> str:
    """A recipe with the chosen settings.

    Raises:
        ConfigError: If no trial has figures.
    """
    settings = tuned.settings
    score = tuned.knee.summary["score"]
    lines = [
        f"# The best of {len(tuned.trials)} trials, score {score:.3f} on the people tried:",
        f"# {command}",
        f"model = {json.dumps(model)}",
        "",
        "[method]",
        f'name = "{tuned.job["method"]}"',
        *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"
