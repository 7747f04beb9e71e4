"""`unsee forget`: photos of people in, a run folder out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.cli.session import (
    Dataset,
    Debug,
    General,
    Json,
    Quiet,
    RequestFile,
    Retain,
    Strangers,
    command_line,
    hush,
    print_json,
    progress,
    verb,
)

# More than anybody has time for; --budget ends the search before.
MOST_TRIALS = 1000


@verb
def forget(
    model: Annotated[
        str | None, typer.Argument(help="Folder, hub name, or world:llava.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="People folder of those to forget, or world:A, B, C, dev, ABC."),
    ] = None,
    request: RequestFile = None,
    dataset: Dataset = None,
    retain: Retain = None,
    general: General = None,
    strangers: Strangers = None,
    artifact: Annotated[
        list[Path] | None,
        typer.Option(help="Run of an earlier request, to go on from; several in their order."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="See `unsee list methods` and `unsee list erasers`.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="visual: photos only; both: also asked by name.", show_default="visual"),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option(help="Photos a person given to the method (world).", show_default="5"),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file with all of this.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as method.lr=1e-4; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/forget")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds every draw.", show_default="0")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on if the model recognises nobody.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    auto: Annotated[
        bool,
        typer.Option("--auto", help="Choose the method's settings by trials on part of it."),
    ] = False,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Minutes that --auto takes, run included.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done, time and memory; write nothing."),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model forget people; the run folder holds what changed, or what suppresses them.

    The model is asked first: what it does not know is reported, never counted as forgotten. The
    same command again goes on after an interruption.

    Example: unsee forget world:llava --subject world:A --out runs/a
    """
    from unsee.errors import ConfigError
    from unsee.recipe import read_recipe
    from unsee.sources import open_model, people_of, request_of

    given: dict[str, Any] = {
        "model": model,
        "subject": subject,
        "request": request,
        "dataset": dataset,
        "retain": retain,
        "general": general,
        "strangers": strangers,
        "artifacts": [str(run) for run in artifact] if artifact else None,
        "scope": scope,
        "photos": photos,
        "out": None if out is None else str(out),
        "seeds": None if seed is None else [seed],
        "method": None if method is None else {"name": method},
    }
    resolved, settings = read_recipe(recipe, given, set_ or ())
    if auto != (budget is not None) or (auto and dry_run):
        raise ConfigError("expected --auto with --budget MINUTES and without --dry-run; give both")
    hush()
    if dry_run:
        from unsee.cli.dry_run import dry_run as say

        say(resolved, settings, quiet=quiet, as_json=as_json)
        return
    people = people_of(resolved)
    from unsee.artifacts import apply_stack, locked
    from unsee.forget import forget as run_forget

    runs = []
    first = resolved.folder(resolved.seeds[0])
    with progress(quiet=quiet) as report:
        vlm = open_model(resolved.model, report)
        apply_stack(vlm, resolved.artifacts)
        with locked(first):
            asked = request_of(resolved, vlm, run=first, force=force, report=report, people=people)
        if budget is not None:
            settings = _chosen(resolved, settings, vlm, asked, first, budget, report)
        for number in resolved.seeds:
            run = run_forget(
                vlm,
                asked,
                method=settings,
                seed=number,
                out=resolved.folder(number),
                command=command_line(),
                progress=report,
                overwrite=overwrite,
            )
            runs.append(run)
    missing, left_out = asked.not_measurable, asked.description.get("left_out", {})
    unreadable = asked.description.get("unreadable", [])
    if as_json:
        print_json(
            {
                "runs": [str(run.folder) for run in runs],
                "subjects": list(asked.subjects),
                "not_measurable": dict(missing),
                "left_out": left_out,
                **({"unreadable": unreadable} if unreadable else {}),
            }
        )
        return
    for what, why in missing.items():
        typer.echo(f"not measurable: {what}: {why}")
    for what, why in left_out.items():
        typer.echo(f"left out: {what}: {why}")
    for photo in unreadable:
        typer.echo(f"left out: {photo}")
    for run in runs:
        typer.echo(f"{run.folder}: {'was done already' if run.resumed else 'done'}")
    typer.echo(f"Next: {_next(resolved, runs[0].folder)}")


def _chosen(
    recipe: Any, settings: Any, vlm: Any, asked: Any, folder: Path, minutes: float, report: Any
) -> Any:
    """The settings that trials on part of what the method may see found best.

    Once they are chosen they stay, so that a killed run goes on with the same.
    """
    from unsee.artifacts import atomic_write_text
    from unsee.cli.tune import recipe_text
    from unsee.settings import read_toml, resolve
    from unsee.sources import gold_of, open_model
    from unsee.trials import rehearsal
    from unsee.tune import tune

    chosen = folder / "tune" / "recipe.toml"
    if not chosen.exists():
        never = gold_of(recipe.model)
        tuned = tune(
            vlm,
            rehearsal(asked, seed=recipe.seeds[0]),
            method=type(settings),
            fixed={name: getattr(settings, name) for name in settings.model_fields_set},
            trials=MOST_TRIALS,
            seed=recipe.seeds[0],
            gold=open_model(never) if never is not None else None,
            out=chosen.parent,
            minutes=minutes,
            progress=report,
        )
        atomic_write_text(chosen, recipe_text(tuned, recipe.model, command_line()))
    table = read_toml(chosen)["method"]
    table.pop("name")
    return resolve(type(settings), table, where=str(chosen))


def _next(recipe: Any, folder: Path) -> str:
    """The audit that goes with a run."""
    import shlex

    words = ["unsee", "audit", recipe.model]
    for run in (*recipe.artifacts, str(folder)):
        words += ["--artifact", run]
    for flag in ("subject", "request", "dataset", "retain", "general", "strangers"):
        if (value := getattr(recipe, flag)) is not None:
            words += [f"--{flag}", value]
    return shlex.join(words)
