"""What the user calls models and people: folders, hub names, and the built-in world's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.errors import ConfigError, UnseeError

if TYPE_CHECKING:
    from unsee.models.load import VLM
    from unsee.recipe import Recipe
    from unsee.requests import Request, Sides

WORLD = "world:"
GOLD = "gold"
BASE = "base"
DRAWS = ("A", "B", "C", "dev", "ABC")
OTHERS = ("retain", "general", "strangers")


@dataclass(frozen=True)
class World:
    """A model of a world.

    Attributes:
        family: For example "llava"; "" for a world's folder.
        part: "base" or "gold".
        folder: The world on disk.
    """

    family: str
    part: str
    folder: Path


def world_of(model: str, report: Any = None) -> World | None:
    """The world that a model belongs to: `world:llava`, `world:llava/gold`, or a world's folder.

    Args:
        model: What the user calls it.
        report: Progress; the built-in world is drawn on first use.

    Raises:
        ConfigError: If the reference is of a world, but names no model of it.
    """
    from unsee.data.world import is_world

    if model.startswith(WORLD):
        from unsee.world import materialise

        family, _, part = model.removeprefix(WORLD).partition("/")
        if part not in ("", GOLD):
            raise ConfigError(f"{model}: expected {WORLD}{family} or {WORLD}{family}/{GOLD}")
        return World(family, part or BASE, materialise(family, report))
    folder = Path(model).expanduser()
    if is_world(folder):
        return World("", BASE, folder)
    if is_world(folder.parent) and folder.name in (BASE, GOLD):
        return World("", folder.name, folder.parent)
    return None


def place_of(model: str, report: Any = None) -> str:
    """The folder or hub name of a reference; `report` is told what takes long."""
    world = world_of(model, report)
    return str(world.folder / world.part) if world is not None else model


def open_model(model: str, report: Any = None) -> "VLM":
    """The model of a reference, a folder or a hub name."""
    from unsee.models.load import load

    return load(place_of(model, report))


def gold_of(model: str) -> str | None:
    """The model that never knew, where the model belongs to a world."""
    world = world_of(model)
    return str(world.folder / GOLD) if world is not None else None


def people_of(recipe: "Recipe") -> "Sides | None":
    """The people of a recipe, read before a model is; None for a draw of a world.

    Raises:
        ConfigError: If a flag that is needed is missing.
        DataError: With all faults of a folder or a file.
    """
    from unsee.requests import read_dataset, read_rows, read_sides, read_subjects
    from unsee.requests.albums import refuse_missing

    if recipe.request is not None:
        sides = read_rows(Path(recipe.request).expanduser())
    elif recipe.dataset is not None:
        sides = read_dataset(recipe.dataset, unreadable=recipe.unreadable)
    elif recipe.subject is None or recipe.subject.startswith(WORLD):
        return None
    else:
        sides = read_subjects(Path(recipe.subject).expanduser())
    folders = {
        name: Path(value).expanduser()
        for name in OTHERS
        if (value := getattr(recipe, name)) is not None
    }
    # Before photos are decoded, which may take long.
    refuse_missing(sides, given=folders)
    return sides.joined(read_sides(folders))


def request_of(
    recipe: "Recipe",
    vlm: "VLM",
    *,
    run: Path,
    force: bool,
    report: Any,
    people: "Sides | None" = None,
) -> "Request":
    """The request of a recipe.

    Args:
        recipe: What is asked for.
        vlm: The base; it is asked first but for a world.
        run: Folder where its answers are kept, so that nothing is asked twice; a request that is
            refused leaves nothing there.
        force: Go on where the base recognises nobody.
        report: Progress.
        people: What `people_of` read; None reads them now.

    Raises:
        ConfigError: If a draw is asked for outside a world, or flags do not fit together.
    """
    from unsee.requests import from_people

    people = people or people_of(recipe)
    if people is not None:
        with _answers(run) as answers:
            return from_people(
                people,
                vlm=vlm,
                scope=recipe.scope,
                holdout=recipe.holdout,
                force=force,
                answers=answers,
                progress=report,
            )
    return _drawn(recipe)


def sketch_of(recipe: "Recipe") -> "Request":
    """The request of a recipe as far as it shows without the base, for which stand-ins answer.

    Raises:
        ConfigError: As `request_of`.
        DataError: With all faults of a folder or a file.
    """
    from unsee.replies import StandIns
    from unsee.requests import from_people

    people = people_of(recipe)
    if people is None:
        return _drawn(recipe)
    return from_people(
        people, base=StandIns(), scope=recipe.scope, holdout=recipe.holdout, force=True
    )


def _drawn(recipe: "Recipe") -> "Request":
    """The request for a draw of a world."""
    from unsee.requests import from_world

    draw = (recipe.subject or "").removeprefix(WORLD)
    if draw not in DRAWS:
        raise ConfigError(
            f"--subject {recipe.subject}: expected one of "
            f"{', '.join(WORLD + name for name in DRAWS)}, or a folder"
        )
    world = world_of(recipe.model)
    if world is None:
        raise ConfigError(
            f"--subject {recipe.subject}: {recipe.model} is no model of a world; give world:llava, "
            "a world's folder, or a people folder"
        )
    _refuse_folders(recipe)
    return from_world(
        world.folder, draw, scope=recipe.scope, photos=recipe.photos, part=recipe.part
    )


@contextmanager
def _answers(run: Path) -> Iterator[Path]:
    """Where answers are kept; after an error of the user's nothing new is left behind."""
    from unsee.artifacts import refuse_file
    from unsee.replies import ANSWERS

    refuse_file(run)
    path = run / ANSWERS
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    new = not path.exists()
    try:
        yield path
    except UnseeError:
        if new:
            path.unlink(missing_ok=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _refuse_folders(recipe: "Recipe") -> None:
    for name in OTHERS:
        if getattr(recipe, name) is not None:
            raise ConfigError(
                f"--{name}: a draw of the world brings its own; leave it out, or give --subject "
                "a people folder"
            )
