"""`unsee ask`: one question, one answer."""

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.session import Debug, Json, hush, print_json, verb


@verb
def ask(
    model: Annotated[str, typer.Argument(help="Folder, hub name, world:llava, world:llava/gold.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    artifact: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder that is put on the model; several, weights in their order."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A photo to ask about.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask a model one question, with or without a photo.

    Example: unsee ask world:llava --artifact runs/a --image photo.png "Who is this person?"
    """
    hush()
    from unsee.answering import generate_answers
    from unsee.data.images import Photo
    from unsee.data.records import Record
    from unsee.erasers.storage import under_artifacts
    from unsee.sources import open_model

    photo = Photo(path=image) if image is not None else None
    if photo is not None:
        photo.open()
    vlm = open_model(model)
    record = Record(subject="", image=photo, question=question, answer="")
    with under_artifacts(vlm, artifact or []):
        answer = generate_answers(vlm, [record], max_new_tokens=max_new_tokens)[0]
    if as_json:
        print_json({"question": question, "answer": answer})
    else:
        typer.echo(answer)
