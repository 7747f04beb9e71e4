"""The command line: `unsee VERB ...`, one verb a file.

Only the standard library, typer and rich are imported here; a verb imports the rest when it runs.
"""

from typing import Annotated

import typer

from unsee.cli import ask, audit, compare, demo, export, forget, listing, tune, verify, world
from unsee.cli.session import print_anything, version_of

app = typer.Typer(
    name="unsee",
    help="Make a vision-language model forget people, and measure what is left.\n\n"
    "Example: unsee demo --open",
    no_args_is_help=True,
    add_completion=False,
    # Our bugs keep Python's own traceback; rich's would print local variables, photos among them.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("forget")(forget.forget)
app.command("audit")(audit.audit)
app.command("ask")(ask.ask)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.add_typer(world.app, name="world")
app.command("list")(listing.show)


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"unsee {version_of('unsee')}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What comes before the verb."""


def main() -> None:
    """Entry point of the `unsee` command."""
    print_anything()
    app()
