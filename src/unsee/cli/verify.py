"""`unsee verify`: does a report still say what was measured?"""

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.cli.session import Debug, Json, Quiet, hush, print_json, progress, verb

if TYPE_CHECKING:
    from unsee.audit.verifying import Check
    from unsee.report.evidence import Evidence

FAILED = 1


@verb
def verify(
    run: Annotated[
        Path | None, typer.Argument(help="Folder that unsee audit wrote to.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public key of whoever is to have signed it.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Questions to ask again of every model; 0 asks none.")
    ] = 32,
    seed: Annotated[
        int | None,
        typer.Option(help="Draws those questions.", show_default="another one each time"),
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(help="Write a new private key here, and FILE.pub; nothing is checked."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check the evidence of a report, and ask some of its questions again.

    Hashes, signature, figures, summary and verdict are computed anew; then the models are opened as
    the audit opened them, from the same folder. Exits with 1 if anything does not hold.

    Example: unsee verify runs/a --key mine.pem.pub
    """
    from unsee.errors import ConfigError

    if (run is None) == (new_key is None):
        raise ConfigError("expected a run to check, or --new-key FILE; give one of them")
    if new_key is not None:
        from unsee.report.signing import new_key as write_pair

        public = write_pair(new_key)
        if as_json:
            print_json({"private": str(new_key), "public": str(public)})
        else:
            typer.echo(f"{new_key}: private key, for unsee audit --sign; keep it to yourself")
            typer.echo(f"{public}: public key, for unsee verify --key")
        return
    if run is not None:
        _check(run, key, samples, seed, quiet=quiet, as_json=as_json)


def _check(
    run: Path, key: Path | None, samples: int, seed: int | None, *, quiet: bool, as_json: bool
) -> None:
    from unsee.audit.verifying import ATTESTS, failed
    from unsee.audit.verifying import verify as check

    hush()
    drawn_with = _fresh_seed() if seed is None else seed
    checks, evidence = check(run, key=key)
    if not as_json:
        # Whatever comes next: models and photos of the audit may be gone.
        _say(checks)
    if evidence is not None and not failed(checks):
        more = _again(run, evidence, samples, drawn_with, quiet=quiet)
        if not as_json:
            _say(more)
        checks += more
    wrong = failed(checks)
    if as_json:
        print_json(
            {
                "verified": not wrong,
                "checks": [vars(check) for check in checks],
                "seed": drawn_with,
                "attests": ATTESTS,
            }
        )
    else:
        typer.echo(f"{run}: {'does NOT hold' if wrong else 'holds'}")
        typer.echo(ATTESTS)
    if wrong:
        raise typer.Exit(FAILED)


def _say(checks: "list[Check]") -> None:
    for check in checks:
        typer.echo(f"{check.outcome:<11}  {check.what}: {check.said}")


def _again(
    run: Path, evidence: "Evidence", samples: int, seed: int, *, quiet: bool
) -> "list[Check]":
    """Open what the audit opened, and ask again."""
    from unsee.audit.verifying import Check, check_artifacts, failed
    from unsee.report import load

    audit = _audit_of(load(run).command, run)
    if audit is None:
        said = "report.json names no unsee audit or demo that could be repeated"
        return [Check("asked again", "not checked", said)]
    checks = check_artifacts(evidence, audit["artifact"])
    if failed(checks):
        return checks
    if not samples:
        return [*checks, Check("asked again", "not checked", "--samples 0")]
    return [*checks, *_asked(evidence, audit, samples, seed, run, quiet=quiet)]


def _asked(
    evidence: "Evidence",
    audit: Mapping[str, Any],
    samples: int,
    seed: int,
    run: Path,
    *,
    quiet: bool,
) -> "list[Check]":
    from unsee.audit.again import Opened, ask_again, check_questions, drawn
    from unsee.audit.verifying import Check, check_model, failed
    from unsee.erasers.storage import under_artifacts
    from unsee.sources import gold_of, open_model

    name = audit["base"] or audit["model"]
    never = audit["gold"] or gold_of(name)
    with progress(quiet=quiet) as report:
        base = open_model(name, report)
        erased = open_model(audit["model"]) if audit["base"] is not None else None
        gold = open_model(never) if never is not None else None
        opened = {"base": base, "erased": erased, "gold": gold}
        checks = [
            check_model(evidence, model, vlm.identity)
            for model, vlm in opened.items()
            if vlm is not None
        ]
        if failed(checks):
            return checks
        request = _request(audit, base, run, report)
        found, sizes = check_questions(evidence, request)
        rows = drawn(sizes, samples, seed)
        models: dict[str, Opened] = {"base": lambda: nullcontext(base)}
        if audit["artifact"]:
            models["erased"] = lambda: under_artifacts(base, audit["artifact"])
        elif erased is not None:
            models["erased"] = lambda: nullcontext(erased)
        if gold is not None:
            models["gold"] = lambda: nullcontext(gold)
        count = sum(map(len, rows.values()))
        said = f"{count} questions drawn with --seed {seed}; attacks are not tried again"
        return [
            *checks,
            *found,
            Check("drawn", "ok", said),
            *ask_again(
                evidence,
                request,
                models,
                rows,
                batch_size=audit["batch_size"],
                progress=report,
            ),
        ]


def _request(audit: Mapping[str, Any], base: Any, run: Path, report: Any) -> Any:
    """The request of an audit; what is asked for it goes to a copy of the answers it left."""
    import shutil
    import tempfile

    from unsee.recipe import recipe_of_audit
    from unsee.replies import ANSWERS
    from unsee.sources import people_of, request_of

    wanted = recipe_of_audit(audit)
    people = people_of(wanted)
    with tempfile.TemporaryDirectory() as copy:
        for folder in (audit["cache"], audit["out"], run):
            if folder is not None and (Path(folder) / ANSWERS).is_file():
                shutil.copyfile(Path(folder) / ANSWERS, Path(copy) / ANSWERS)
                break
        return request_of(wanted, base, run=Path(copy), force=True, report=report, people=people)


def _audit_of(command: str, run: Path) -> dict[str, Any] | None:
    """The options of the audit that a command is, or makes; None for another command.

    Raises:
        ArtifactError: If this version does not read it.
    """
    from unsee.cli import app
    from unsee.cli.demo import MODEL, SUBJECT
    from unsee.errors import ArtifactError

    words = shlex.split(command)
    if words[:2] == ["unsee", "demo"]:
        words = ["unsee", "audit", MODEL, "--subject", SUBJECT, "--artifact", str(run)]
    if words[:2] != ["unsee", "audit"]:
        return None
    group: Any = typer.main.get_command(app)
    # Above all that refuses words; the module it lies in differs between releases of typer.
    refusal: Any = typer.BadParameter.__mro__[2]
    try:
        given = group.commands["audit"].make_context("audit", words[2:]).params
    except refusal as error:
        raise ArtifactError(
            f"{run}: its audit cannot be repeated by this version ({error.format_message()}); "
            "check with --samples 0"
        ) from error
    folders = [Path(folder) for folder in given["artifact"] or ()]
    if folders and given["out"] is None:
        # Written into the last of them, wherever that lies now.
        folders[-1] = run
    return given | {"artifact": folders}


def _fresh_seed() -> int:
    """Not one that whoever wrote the report could foresee."""
    import secrets

    return secrets.randbelow(1_000_000)
