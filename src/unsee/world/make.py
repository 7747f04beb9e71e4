"""Make a world folder: shipped weights for the user's cache, or everything from scratch."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import unsee
from unsee.artifacts import atomic_write_json, cache_folder, locked, refuse_file
from unsee.data.world import CARD, WORLD, World
from unsee.errors import ConfigError
from unsee.processes import side_by_side
from unsee.registry import nearest
from unsee.world.architecture import Architecture
from unsee.world.build import Recipe, save_model, train_model, train_tower
from unsee.world.card import measure
from unsee.world.curriculum import Source
from unsee.world.drawn import Drawn
from unsee.world.families import ARCHITECTURES
from unsee.world.folder import people_table, write_data
from unsee.world.intake import read_photographed

FORMAT = 1
FAMILIES = tuple(ARCHITECTURES)

Progress = Callable[[str, int, int], None]


def shipped(family: str) -> Path:
    """Folder of the package that holds `base/` and `gold/` of a family.

    Raises:
        ConfigError: If no world of the family is shipped.
    """
    if family not in FAMILIES:
        raise ConfigError(f"world:{family}: no such world; {nearest(family, list(FAMILIES))}")
    folder = Path(str(resources.files("unsee.world") / "weights" / family))
    if not (folder / WORLD).is_file():
        raise ConfigError(
            f"world:{family}: its models are not shipped; train them with unsee world make "
            f"--family {family} --out DIR, and give DIR in its place"
        )
    return folder


def materialise(family: str = "llava", progress: Progress | None = None) -> Path:
    """The shipped world as a folder in the user's cache, written there on first use.

    Args:
        family: One of `FAMILIES`.
        progress: Called with (what, done, in all).

    Returns:
        The world folder. Its name holds the version and the weights' digest, so another version of
        this package never reads it.

    Raises:
        ConfigError: If no world of the family is shipped.
    """
    weights = shipped(family)
    table = json.loads((weights / WORLD).read_text(encoding="utf-8"))
    folder = cache_folder() / f"world-{family}-{unsee.__version__}-{_digest(weights)}"
    if (folder / WORLD).is_file():
        return folder
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if progress is not None:
            progress("drawing the world", 0, 1)
        for name in ("base", "gold"):
            shutil.copytree(weights / name, partial / name)
        write_data(partial, Drawn(table["seed"]))
        atomic_write_json(partial / WORLD, table)
        if progress is not None:
            progress("drawing the world", 1, 1)
        # Another process may have finished first, and read from it already.
        if not (folder / WORLD).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def make_world(
    folder: Path,
    *,
    people: Path | None = None,
    strangers: Path | None = None,
    family: str = "llava",
    seed: int = 0,
    recipe: Recipe | None = None,
    command: str = "unsee world make",
    progress: Progress | None = None,
) -> Path:
    """Train a world's models from scratch and write its data.

    Where PyTorch may use several threads, base and gold are trained side by side, a process each
    with half of them: so small a model gains little from a second thread. An interrupted call
    continues from its checkpoints in `folder/.build` when it is made again.

    Args:
        folder: Written to; `world.json` appears last.
        people: People folder of real photographs (see `read_photographed`) instead of drawn
            people. What base and gold then know is measured and written to `card.json`.
        strangers: Photographs of strangers to go with them; drawn ones stand in for none.
        family: One of `FAMILIES`.
        seed: Seeds people, photos and weights.
        recipe: How the models are trained.
        command: Kept in `world.json`.
        progress: Called with (stage, step, steps) after each step.

    Raises:
        ArtifactError: If the folder is a file or cannot be written to, or another process works
            in it.
        ConfigError: If the folder holds a finished world, or the family is unknown or not made
            for photographs.
        DataError: If `people` or `strangers` cannot be used.
        UnseeError: If a process of ours is ended from outside.
    """
    if family not in ARCHITECTURES:
        raise ConfigError(f"--family {family}: no such family; {nearest(family, list(FAMILIES))}")
    architecture = ARCHITECTURES[family]
    if people is not None and not architecture.cuts_squares:
        raise ConfigError(
            f"--family {family}: cannot be made with --people, since its image processor does not "
            "cut photographs square as they are for training; give --family llava"
        )
    folder = Path(folder)
    refuse_file(folder)
    if (folder / WORLD).exists():
        raise ConfigError(f"{folder}: holds a world already; choose another --out or remove it")
    source = _source(folder, people, strangers, seed)
    recipe = recipe or Recipe()
    with locked(folder):
        if people is not None:
            # It will hold photos of people.
            folder.chmod(0o700)
        table = world_table(family, source, command, recipe)
        _write(folder, architecture, source, recipe, table, progress)
    return folder


def _write(
    folder: Path,
    architecture: Architecture,
    source: Source,
    recipe: Recipe,
    table: dict[str, Any],
    progress: Progress | None,
) -> None:
    """Train what is not trained yet, and write the world; its table comes last."""
    work = folder / ".build"
    settings = {name: table[name] for name in ("family", "seed", "recipe")} | source.marks()
    _same_build(work, settings)

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if progress is not None:
            progress(stage, step, steps)

    train_tower(architecture, work, source, recipe, report)
    models = {"base": False, "gold": True}
    if (threads := torch.get_num_threads() // len(models)) > 0:
        training = partial(_train_alone, architecture, work, source, recipe, threads)
        side_by_side({n: partial(training, gold=gold) for n, gold in models.items()}, report)
    for name, gold in models.items():
        # Where they were trained side by side, this opens their last checkpoints.
        model, processor = train_model(architecture, work, source, recipe, report, gold=gold)
        save_model(model, processor, folder / name)
    write_data(folder, source)
    world = World(folder=folder, table=table, people=tuple(table["people"]))
    if world.photographed:
        atomic_write_json(folder / CARD, measure(world, progress))
    atomic_write_json(folder / WORLD, table)
    shutil.rmtree(work)


def _train_alone(
    architecture: Architecture,
    work: Path,
    source: Source,
    recipe: Recipe,
    threads: int,
    progress: Callable[..., None],
    *,
    gold: bool,
) -> None:
    """Train a model, up to its last checkpoint, in a process of its own."""
    torch.set_num_threads(threads)
    train_model(architecture, work, source, recipe, progress, gold=gold)


def _source(folder: Path, people: Path | None, strangers: Path | None, seed: int) -> Source:
    if people is None:
        if strangers is not None:
            raise ConfigError("--strangers: the built-in world draws its own; give --people too")
        return Drawn(seed)
    for flag, given in (("--people", people), ("--strangers", strangers)):
        if given is not None and folder.resolve().is_relative_to(Path(given).resolve()):
            raise ConfigError(f"--out {folder}: lies in {flag} {given}; choose a folder outside it")
    return read_photographed(people, strangers, seed=seed)


def world_table(family: str, source: Source, command: str, recipe: Recipe) -> dict[str, Any]:
    """What `world.json` says about a world."""
    return {
        "format": FORMAT,
        "family": family,
        "seed": source.seed,
        "command": command,
        "recipe": recipe.__dict__,
        "people": people_table(source),
    } | source.about()


def _digest(weights: Path) -> str:
    """Twelve hexadecimal digits of everything that is shipped of a world."""
    digest = hashlib.sha256()
    for path in sorted(path for path in weights.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _same_build(work: Path, settings: dict[str, Any]) -> None:
    path = work / "settings.json"
    work.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ConfigError(
            f"{path}: an interrupted build with other settings; remove {work} or choose another "
            "--out"
        )
    atomic_write_json(path, settings)
