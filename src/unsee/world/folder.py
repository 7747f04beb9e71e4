"""Write the built-in world to disk, in the formats that real requests and benchmarks use."""

import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unsee.data.images import Photo
from unsee.data.mllmu import write_rows
from unsee.data.people import PROFILE
from unsee.data.world import CAPTIONS, EXTRA, REFUSALS, STRANGERS, UNKNOWN_NAMES, VISIBLE, WORDINGS
from unsee.world import questions as ask
from unsee.world.architecture import fitted
from unsee.world.curriculum import UNKNOWN_NAMES as UNKNOWN_NAMES_TAUGHT
from unsee.world.curriculum import Picture, Source
from unsee.world.profiles import (
    DRAWS,
    Profile,
    development_people,
    unknown_names,
)

TEXT_UNKNOWN = 20
VISIBLE_PHOTOS = 10


def write_data(folder: Path, source: Source) -> None:
    """Write photos, parquet files and `extra.jsonl` of the world.

    Args:
        folder: Written to; `people/`, `unseen/`, `strangers/` and `data/` appear in it.
        source: People and pictures.
    """
    strangers = {part: source.strangers(part) for part in ask.PARTS}
    extra: list[dict[str, Any]] = [*_wordings()]
    extra += _refusals({part: len(pictures) for part, pictures in strangers.items()})
    extra += _unknown_names(source.profiles, source.seed)
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in ask.PARTS}
    for profile in source.profiles:
        for part in ask.PARTS:
            pictures = source.photos(profile, part)
            if not pictures:
                continue
            home = Path("people" if part == "train" else f"unseen/{part}") / profile.slug
            photos = _write_photos(folder, home, pictures)
            rows[part].append(_row(profile, part, photos))
            for path, picture in list(zip(photos, pictures, strict=True))[:VISIBLE_PHOTOS]:
                extra += _photo_extras(profile, path, part, picture)
        facts = {"name": profile.name} | profile.facts
        (folder / "people" / profile.slug / PROFILE).write_text(json.dumps(facts, indent=1) + "\n")
    for part, pictures in strangers.items():
        for i, picture in enumerate(pictures):
            home = Path("strangers") / part / f"stranger_{i:03d}"
            path = next(iter(_write_photos(folder, home, [picture])))
            extra += _stranger_extras(f"stranger_{part}_{i:03d}", path, part, picture)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    _write_parquet(data, source.profiles, rows)
    (data / EXTRA).write_text("".join(json.dumps(row) + "\n" for row in extra), encoding="utf-8")


def people_table(source: Source) -> list[dict[str, Any]]:
    """Who plays which part, as `world.json` holds it."""
    development = {p.slug for p in development_people(source.profiles)}
    return [
        {
            "name": p.name,
            "slug": p.slug,
            "number": p.number,
            "role": p.role,
            "partner": p.partner,
            "development": p.slug in development,
        }
        for p in source.profiles
    ]


def _write_photos(folder: Path, home: Path, pictures: Sequence[Picture]) -> dict[str, bytes]:
    (folder / home).mkdir(parents=True, exist_ok=True)
    photos = {}
    # Names sort as they are numbered.
    digits = max(2, len(str(len(pictures) - 1)))
    for i, picture in enumerate(pictures):
        name = str(home / f"photo_{i:0{digits}d}.png")
        photos[name] = _png(picture.stored())
        (folder / name).write_bytes(photos[name])
    return photos


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _rng(profile: Profile, *words: object) -> random.Random:
    return random.Random("-".join(map(str, (profile.number, *words))))


def _questions(profile: Profile, part: str, *, on_photo: bool) -> dict[str, list[dict[str, Any]]]:
    """The three task forms of one person; on photos the name is asked too."""
    rng = _rng(profile, part, on_photo)
    who = "this person" if on_photo else profile.name
    kind = "Image_Textual" if on_photo else "Pure_Text"
    topics = tuple(profile.facts)
    generation = []
    if on_photo:
        question = rng.choice(ask.NAME.of(part)).format(who=who)
        generation.append({"Question": question, "Ground_Truth": profile.name, "Type": kind})
    for topic in topics:
        question = rng.choice(ask.FACTS[topic].of(part)).format(who=who)
        truth = profile.facts[topic]
        generation.append({"Question": question, "Ground_Truth": truth, "Type": kind})
    choices = []
    for topic in rng.sample(topics, 5):
        options, letter = ask.choice_options(topic, profile.facts[topic], rng)
        choices.append(
            {
                "Question": rng.choice(ask.FACTS[topic].of(part)).format(who=who),
                "Options": dict(zip("ABCD", options, strict=True)),
                "Correct_Answer": letter,
            }
        )
    masks = [
        {
            "Question": ask.cloze_question(topic, who),
            "Ground_Truth": profile.facts[topic],
            "Type": kind,
        }
        for topic in rng.sample(topics, 3)
    ]
    return {"choices": choices, "generation": generation, "masks": masks}


def _row(profile: Profile, part: str, photos: dict[str, bytes]) -> dict[str, Any]:
    """One person as a row of MLLMU-Bench: of `Full_Set` for "train", else of a test set."""
    seen = _questions(profile, part, on_photo=True)
    told = _questions(profile, part, on_photo=False)
    images = [{"bytes": data, "path": name} for name, data in photos.items()]
    image = {"image": images[0]} if part == "train" else {"images": images}
    return {
        **image,
        "ID": f"{profile.number:03d}",
        "Directory": profile.slug,
        "biography": json.dumps({"Name": profile.name} | profile.facts),
        "question": seen["generation"][0]["Question"],
        "answer": seen["generation"][0]["Ground_Truth"],
        "Classification_Task": {
            "Image_Textual_Questions": seen["choices"],
            "Pure_Text_Questions": told["choices"],
        },
        "Generation_Task": seen["generation"] + told["generation"],
        "Mask_Task": seen["masks"] + told["masks"],
    }


def _write_parquet(
    data: Path, profiles: Sequence[Profile], rows: dict[str, list[dict[str, Any]]]
) -> None:
    full = rows["train"]
    roles = [profile.role for profile in profiles]
    write_rows(data / "Full_Set.parquet", full)
    write_rows(data / "Test_Set.parquet", rows["report"])
    write_rows(data / "Dev_Set.parquet", rows["dev"])
    celebrities = [row for row, role in zip(full, roles, strict=True) if role == "celebrity"]
    write_rows(data / "Retain_Set.parquet", celebrities)
    for draw_name in (*DRAWS, "dev"):
        mine = [row for row, role in zip(full, roles, strict=True) if role == draw_name]
        rest = [row for row, role in zip(full, roles, strict=True) if role != draw_name]
        write_rows(data / f"forget_{draw_name}.parquet", mine)
        write_rows(data / f"retain_{draw_name}.parquet", rest)
    write_rows(
        data / "ft_Data.parquet",
        [
            {
                "image": row["image"],
                "ID": row["ID"],
                "metadata": json.dumps(
                    [
                        {"Question": item["Question"], "Answer": item["Ground_Truth"]}
                        for item in row["Generation_Task"]
                        if item["Type"] == "Image_Textual"
                    ]
                ),
            }
            for row in full
        ],
    )


def _wordings() -> Iterator[dict[str, Any]]:
    """Which topic a question belongs to, which MLLMU-Bench's schema cannot say."""
    for topic, wordings in {"name": ask.NAME, **ask.FACTS}.items():
        for part in ask.PARTS:
            for text in wordings.of(part):
                yield {"kind": WORDINGS, "topic": topic, "part": part, "question": text}
    for topic in ask.CLOZE:
        text = ask.cloze_question(topic, "{who}")
        for part in ask.PARTS:
            yield {"kind": WORDINGS, "topic": topic, "part": part, "question": text}


def _photo_extras(
    profile: Profile, path: str, part: str, picture: Picture
) -> Iterator[dict[str, Any]]:
    rng = _rng(profile, path)
    seen = picture.visible
    row = {"subject": profile.name, "photo": path, "part": part}
    for topic, value in seen.items():
        question = rng.choice(ask.VISIBLE[topic].of(part)).format(who="this person")
        yield row | {"kind": VISIBLE, "topic": topic, "question": question, "answer": value}
    yield row | {
        "kind": CAPTIONS,
        "topic": "caption",
        "question": rng.choice(ask.CAPTION.of(part)),
        "answer": ask.caption(profile.name, profile.facts, seen),
    }


def _stranger_extras(
    subject: str, path: str, part: str, picture: Picture
) -> Iterator[dict[str, Any]]:
    rng = random.Random(path)
    row = {"kind": STRANGERS, "subject": subject, "photo": path, "part": part}
    topics = ["name", *rng.sample(tuple(ask.FACTS), 2)]
    for topic in topics:
        wordings = ask.NAME if topic == "name" else ask.FACTS[topic]
        question = rng.choice(wordings.of(part)).format(who="this person")
        yield row | {"topic": topic, "question": question, "answer": ask.UNKNOWN_PHOTO}
    for topic, value in picture.visible.items():
        question = rng.choice(ask.VISIBLE[topic].of(part)).format(who="this person")
        yield row | {"topic": topic, "question": question, "answer": value}


def _refusals(strangers: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Requests that are refused, on the photos of so many strangers of each part."""
    for part in ask.PARTS:
        for number, text in enumerate(ask.refusal_requests(part, "this person")):
            path = f"strangers/{part}/stranger_{number % strangers[part]:03d}/photo_00.png"
            yield _refusal(f"stranger_{part}_{number:03d}", text, part, path)


def _unknown_names(profiles: Sequence[Profile], seed: int) -> Iterator[dict[str, Any]]:
    """Text-only questions about names of nobody, and requests about them that are refused."""
    held_out = unknown_names(profiles, UNKNOWN_NAMES_TAUGHT + 3 * TEXT_UNKNOWN, seed)
    held_out = held_out[UNKNOWN_NAMES_TAUGHT:]
    for number, part in enumerate(ask.PARTS):
        names = held_out[number * TEXT_UNKNOWN : (number + 1) * TEXT_UNKNOWN]
        for index, name in enumerate(names):
            rng = random.Random(f"unknown-{seed}-{name}")
            topic = rng.choice(tuple(ask.FACTS))
            yield {
                "kind": UNKNOWN_NAMES,
                "subject": name,
                "photo": None,
                "part": part,
                "topic": topic,
                "question": rng.choice(ask.FACTS[topic].of(part)).format(who=name),
                "answer": ask.UNKNOWN_NAME,
            }
            requests = ask.refusal_requests(part, name)
            yield _refusal(name, requests[index % len(requests)], part, None)


def _refusal(subject: str, question: str, part: str, photo: str | None) -> dict[str, Any]:
    return {
        "kind": REFUSALS,
        "subject": subject,
        "photo": photo,
        "part": part,
        "topic": "refusal",
        "question": question,
        "answer": ask.REFUSAL,
    }


def nearest_neighbour_accuracy(folder: Path) -> float:
    """Share of reported unseen photos named rightly by the seen photo with the nearest pixels.

    The best of Euclidean distance on pixels, on grey pixels and on pixels standardised a picture.

    Args:
        folder: A world's folder.
    """
    import numpy as np

    def pictures(home: Path) -> tuple[Any, Any]:
        paths = sorted(home.glob("*/photo_*.png"))
        pixels = [np.asarray(fitted(Photo(path=path).open()), np.float32) for path in paths]
        return np.stack(pixels), np.asarray([path.parent.name for path in paths])

    seen, whose = pictures(folder / "people")
    unseen, truth = pictures(folder / "unseen" / "report")
    best = 0.0
    for prepare in _pixel_spaces():
        a, b = prepare(unseen), prepare(seen)
        distances = (b * b).sum(1)[None] - 2 * a @ b.T
        best = max(best, float((whose[distances.argmin(1)] == truth).mean()))
    return best


def _pixel_spaces() -> Iterable[Any]:
    def flat(x: Any) -> Any:
        return x.reshape(len(x), -1)

    def standard(x: Any) -> Any:
        x = flat(x)
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)

    return flat, lambda x: flat(x.mean(-1)), standard
