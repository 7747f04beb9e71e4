"""`unsee audit`: what is left, what is kept: report.json and its evidence, report.md and .html."""

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
def audit(
    model: Annotated[str, typer.Argument(help="Folder, hub name, or world:llava.")],
    artifact: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run folder that makes the erased model; several, weights in their order."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model before, where MODEL itself is the erased one.")
    ] = None,
    gold: Gold = None,
    subject: Annotated[
        str | None, typer.Option(help="People folder, or world:A, B, C, dev, ABC.")
    ] = None,
    request: RequestFile = None,
    dataset: Dataset = None,
    retain: Retain = None,
    general: General = None,
    strangers: Strangers = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="visual: photos only; both: also asked by name.",
            show_default="the artifact's, or visual",
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option(
            help="Photos a person given to the method (world).",
            show_default="the artifact's, or 5",
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            help="Share of a person's photos not given to the method (folders).",
            show_default="the artifact's, or 0.25",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="the last artifact's")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for base and gold answers, shared by audits.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions a forward pass.")] = 64,
    embed_photos: Annotated[
        bool, typer.Option("--embed-photos", help="Put small photos into the report.")
    ] = False,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Try to bring it back: all, or names with commas; see unsee list attacks."
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="published: a benchmark's own prompts and scores too (mllmu:, clear:); omm: those "
            "of Open-MMUnlearning (mllmu:)."
        ),
    ] = "strict",
    control: Annotated[
        str | None,
        typer.Option(
            help="Run that merely hides, to show which attacks have power here; auto makes one of "
            "the base, none goes without.",
            show_default="auto with --attacks",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Minutes for the attacks: the strongest that fit are run, the others named.",
            show_default="all are run",
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(help="Private key that signs the evidence; see unsee verify --new-key."),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the model before, after and one that never knew, and write a report.

    Example: unsee audit world:llava --artifact runs/a --subject world:A
    """
    from unsee.errors import ConfigError

    if artifact and base is not None:
        raise ConfigError(
            "expected --artifact or --base, got both; MODEL is the base of an artifact"
        )
    from unsee.recipe import recipe_of_audit
    from unsee.sources import gold_of, open_model, people_of, request_of

    if control is not None and attacks is None:
        raise ConfigError("--control shows the power of attacks; give --attacks too")
    if budget is not None and attacks is None:
        raise ConfigError("--budget is for attacks; give --attacks too")
    if budget is not None and not 0 < budget < float("inf"):
        raise ConfigError(f"--budget {budget:g}: expected minutes above 0; give more")
    if sign is not None:
        from unsee.report.signing import read_private

        read_private(sign)
    tried, hides = None, None
    if attacks is not None:
        hides = None if control == "none" else control or "auto"
        from unsee.attacks import attacks_named

        tried = attacks_named(attacks)

    wanted = recipe_of_audit(
        {
            "model": model,
            "base": base,
            "artifact": artifact,
            "subject": subject,
            "request": request,
            "dataset": dataset,
            "retain": retain,
            "general": general,
            "strangers": strangers,
            "scope": scope,
            "photos": photos,
            "holdout": holdout,
        }
    )
    hush()
    people = people_of(wanted)
    from unsee.artifacts import locked, read_stack
    from unsee.audit import audit as run_audit

    folder = out or (artifact[-1] if artifact else Path("runs/audit"))
    with progress(quiet=quiet) as report:
        before = open_model(base or model, report)
        read_stack(before, artifact or [])
        read_stack(before, [Path(hides)] if hides not in (None, "auto") else [])
        never = gold or gold_of(base or model)
        with locked(folder):
            asked = request_of(
                wanted, before, run=cache or folder, force=True, report=report, people=people
            )
        result = run_audit(
            before,
            asked,
            artifact=artifact or None,
            erased=open_model(model) if base is not None else None,
            gold=open_model(never) if never is not None else None,
            out=folder,
            cache=cache,
            seed=seed,
            command=command_line(),
            embed_photos=embed_photos,
            batch_size=batch_size,
            attacks=tried,
            control=hides,
            budget=budget,
            protocol=protocol,
            sign=sign,
            progress=report,
        )
    if as_json:
        print_json(summary_of(result, folder))
        return
    show(result)
    typer.echo(f"Report: {folder / 'report.html'}")


def summary_of(result: Any, folder: Path) -> dict[str, Any]:
    """The short of a report, for machines."""
    return {
        "report": str(folder / "report.json"),
        "summary": result.summary.model_dump(mode="json"),
        "verdict": result.verdict.model_dump(mode="json"),
    }


def show(result: Any) -> None:
    """The short of a report as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    from unsee.audit.published_omm import AGGREGATES
    from unsee.report import attempts, published, wording

    titles = wording.MODELS.values()
    table = Table("questions", "before", "after", "never knew", "n", box=None)
    for name in wording.set_order(result):
        cells = [result.model(model).cell(name) for model in wording.MODELS]
        table.add_row(
            wording.set_title(name),
            *(wording.value_or_reason(cell) for cell in cells),
            wording.counts(cells),
        )
    console = Console()
    console.print(table)
    summary = result.summary
    console.print(
        f"forget gap {wording.figure(summary.forget_gap)} (0 best), "
        f"keep {wording.figure(summary.keep)} (1 best), "
        f"score {wording.figure(summary.score)} (1 best)"
    )
    console.print(f"Verdict: {result.verdict.rung}", highlight=False)
    for split, score, *models, _, _ in published.rows(result):
        if split == AGGREGATES:
            said = ", ".join(f"{m} {t.lower()}" for m, t in zip(models, titles, strict=True))
            console.print(f"{AGGREGATES}: {score}: {said}", highlight=False)
    judged = result.model("erased" if "erased" in result.models else "base")
    for sentence in attempts.sentences(judged):
        console.print(sentence, highlight=False)
