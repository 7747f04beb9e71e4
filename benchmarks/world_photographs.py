"""A world made of photographs: does its base recognise photos that it never saw?

    python benchmarks/world_photographs.py [--side 64] [--strangers] [--steps 600]

Drawn people whom the built-in world does not hold stand for photographed ones: small grey photos,
none of whose attributes is told. `make_world` gets their folder as it gets any other. As more
strangers can be drawn, it shows, too, how often people whom a model never saw are named. Writes
`docs/results/world-photographs-SIDE.json`, or `-SIDE-strangers.json`.
"""

import argparse
import io
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

from cells import Table, provenance, write
from PIL import Image

from unsee.answering import generate_answers
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.data.world import CARD, open_world
from unsee.metrics.answers import is_unknown
from unsee.world import make_world
from unsee.world.build import Recipe
from unsee.world.drawn import Drawn
from unsee.world.faces import Face, stranger_face
from unsee.world.portraits import draw, make_view
from unsee.world.questions import NAME, UNKNOWN_PHOTO

PEOPLE, PHOTOS, STRANGERS, ASKED = 16, 8, 40, 200
# The faces of the built-in world are those of seed 0.
SEED = 1


def photo(face: Face, rng: random.Random, side: int) -> Image.Image:
    """One small grey photo."""
    picture = draw(face, make_view(rng)).convert("L")
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def write_people(folder: Path, side: int) -> tuple[Path, Path, list[Photo]]:
    """People folder, photos of strangers, and photos of others who are in neither."""
    shutil.rmtree(folder, ignore_errors=True)
    faces = Drawn(SEED).faces[:PEOPLE]
    for number, face in enumerate(faces):
        home = folder / "people" / f"s{number + 1}"
        home.mkdir(parents=True)
        rng = random.Random(f"photos-{number}")
        for index in range(PHOTOS):
            photo(face, rng, side).save(home / f"{index + 1}.pgm")
    rng = random.Random("strangers")
    (folder / "strangers").mkdir()
    asked = []
    for number in range(STRANGERS + ASKED):
        picture = photo(stranger_face(faces, rng, near=False), rng, side)
        if number < STRANGERS:
            picture.save(folder / "strangers" / f"{number:02d}.pgm")
            continue
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        asked.append(Photo(data=buffer.getvalue()))
    return folder / "people", folder / "strangers", asked


def main() -> None:
    """Make the world, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--strangers", action="store_true")
    given = parser.parse_args()
    name = f"world-photographs-{given.side}" + ("-strangers" if given.strangers else "")
    people, strangers, asked = write_people(Path("runs") / f"{name}-photos", given.side)
    recipe = Recipe(
        tower_steps=given.steps,
        tower_batch=32,
        tower_strangers=4000,
        steps=given.steps,
        people=16,
        strangers=8,
        text_rows=2,
    )
    world = make_world(
        Path("runs") / name,
        people=people,
        strangers=strangers if given.strangers else None,
        recipe=recipe,
    )
    table = Table(world, Path("runs/card"))
    question = NAME.report.format(who="this person")
    records = [Record("stranger", image, question, UNKNOWN_PHOTO) for image in asked]
    named = {
        model: sum(not is_unknown(said) for said in generate_answers(table.vlm(model), records))
        for model in ("base", "gold")
    }
    command = f"python benchmarks/world_photographs.py --side {given.side} --steps {given.steps}"
    content = provenance(command + " --strangers" * given.strangers, table)
    del content["photos_per_person"]
    content |= {
        "people": PEOPLE,
        "photos": PHOTOS,
        "recipe": asdict(recipe),
        "photographs": dict(open_world(world).photographed),
        "strangers_never_seen": {
            model: {"not_said_unknown": count / ASKED, "n": ASKED} for model, count in named.items()
        },
    }
    content |= json.loads((world / CARD).read_text(encoding="utf-8"))
    write(Path("docs/results") / f"{name}.json", content)


if __name__ == "__main__":
    main()
