"""Read a world folder: people in fixed draws, with the model that never knew them.

```
world.json        who plays which part
card.json         what the models of a world of photographs know; no reader needs it
base/  gold/      Hugging Face folders
people/  unseen/  strangers/    photos
data/*.parquet    MLLMU-Bench's schema (Full_Set, Test_Set, Dev_Set, ...)
data/extra.jsonl  what that schema lacks: topics, captions, visible attributes, strangers, refusals
```
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from unsee.data.images import Photo
from unsee.data.mllmu import read_records
from unsee.data.records import Record, Split, in_sets
from unsee.errors import ConfigError, DataError

WORLD = "world.json"
CARD = "card.json"
EXTRA = "extra.jsonl"
VISIBLE, CAPTIONS, STRANGERS = "visible", "caption", "stranger"
REFUSALS, UNKNOWN_NAMES, WORDINGS = "refusal", "unknown", "wording"
DRAWS = {"A": ("A",), "B": ("B",), "C": ("C",), "dev": ("dev",), "ABC": ("A", "B", "C")}
RETAIN_PHOTOS = 10

Part = Literal["report", "dev"]


def is_world(folder: Path | str) -> bool:
    """Whether the folder holds a world."""
    return (Path(folder) / WORLD).is_file()


@dataclass(frozen=True)
class World:
    """A world on disk; files are read when they are first needed.

    Attributes:
        folder: Where it is.
        table: Contents of `world.json`.
        people: Its rows: name, slug, number, role, partner, development.
    """

    folder: Path
    table: Mapping[str, Any]
    people: tuple[Mapping[str, Any], ...]

    @property
    def seed(self) -> int:
        """What everything in it was drawn from."""
        return int(self.table.get("seed", 0))

    @property
    def photographed(self) -> Mapping[str, Any]:
        """What is said of the photographs of a world that is not drawn; empty of a drawn one."""
        return self.table.get("photographs", {})

    @cached_property
    def extra(self) -> Mapping[str, list[dict[str, Any]]]:
        """Rows of `extra.jsonl` by kind."""
        path = self.folder / "data" / EXTRA
        rows = defaultdict(list)
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows[row["kind"]].append(row)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: expected JSON lines with a kind each, got {error}; make the world again"
            ) from error
        return rows

    @cached_property
    def topics(self) -> Mapping[str, str]:
        """Question -> topic, for all people and wordings."""
        table = {}
        for row in self.extra[WORDINGS]:
            for who in ("this person", *(person["name"] for person in self.people)):
                table[_wording(row["question"], who)] = row["topic"]
        return table

    def names(self, roles: Iterable[str], *, development: bool | None = None) -> set[str]:
        """Names of the people with these roles; with `development` only those (not) for choices."""
        roles = set(roles)
        return {
            person["name"]
            for person in self.people
            if person["role"] in roles and development in (None, person["development"])
        }

    def asked(self, file: str) -> list[Record]:
        """Records of a parquet file, with names for IDs and with topics; every photo asked."""
        names = {f"{person['number']:03d}": person["name"] for person in self.people}
        records = read_records(self.folder / "data" / file, every_image=True)
        return [replace(r, subject=names[r.subject], topic=self._topic(file, r)) for r in records]

    def _topic(self, file: str, record: Record) -> str:
        if record.question not in self.topics:
            raise DataError(
                f"{file}: question {record.question!r} has no topic in {EXTRA}; "
                "make the world again"
            )
        return self.topics[record.question]

    def known(self) -> list[Record]:
        """What the base model knows about everybody, on photos: for wrong-name scores."""
        return [r for r in self.asked("Full_Set.parquet") if r.image is not None]

    def photos(self, slug: str, count: int) -> list[Photo]:
        """The first stored photos of a person."""
        paths = sorted((self.folder / "people" / slug).glob("photo_*.png"))[:count]
        if len(paths) < count:
            raise DataError(
                f"{self.folder / 'people' / slug}: expected {count} photos, got {len(paths)}; "
                "ask for fewer or make the world again"
            )
        return [Photo(path=path) for path in paths]

    def first_photos(self, slug: str, count: int) -> list[Photo]:
        """As `photos`, or all there are of somebody photographed who has fewer."""
        return self.photos(slug, min(count, self.photographed.get("stored", {}).get(slug, count)))

    def extras(self, kind: str, part: str, subjects: set[str] | None = None) -> list[Record]:
        """Records of `extra.jsonl` of one kind and part."""
        form = "caption" if kind == CAPTIONS else "open"
        return [
            Record(
                subject=row["subject"],
                image=Photo(path=self.folder / row["photo"]) if row["photo"] else None,
                question=row["question"],
                answer=row["answer"],
                form=form,
                topic=row["topic"],
            )
            for row in self.extra[kind]
            if row["part"] == part and (subjects is None or row["subject"] in subjects)
        ]


def _wording(text: str, who: str) -> str:
    """A wording about somebody, as it stands in the files (a cloze begins with a capital)."""
    lead, mark, rest = text.partition("{who}")
    if lead.endswith("blank. "):
        who = who[0].upper() + who[1:]
    return lead + (who if mark else "") + rest


def open_world(folder: Path | str) -> World:
    """The world in a folder.

    Raises:
        DataError: If there is none, or its `world.json` cannot be read.
    """
    path = Path(folder) / WORLD
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        people = tuple(table["people"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: expected a world, got {error}; make one with `unsee world make --out DIR`"
        ) from error
    return World(folder=Path(folder), table=table, people=people)


def read_split(folder: Path | str, draw: str, *, photos: int = 5, part: Part = "report") -> Split:
    """What a run on one draw forgets, keeps and is asked.

    Args:
        folder: A world.
        draw: `A`, `B` or `C` (four people), `dev` (the six that serve every choice), or `ABC`,
            all twelve that are reported on.
        photos: Photos a person given to the method, 1 to 60; of somebody photographed who has
            fewer, all that are not held out.
        part: Which half of unseen views, wordings and general items to ask: `dev` for choices,
            `report` for results. Development people appear in no keep set of a report.

    Raises:
        ConfigError: If the draw is unknown.
        DataError: If the folder is not a complete world.
    """
    if draw not in DRAWS:
        raise ConfigError(f"world:{draw}: expected one of {', '.join(DRAWS)}")
    world = open_world(folder)
    if not 1 <= photos <= 60:
        raise ConfigError(f"photos: expected 1 to 60 a person, got {photos}")
    development = part == "dev"
    forget = world.names(DRAWS[draw])
    retain = world.names(["retain"])
    celebrity = world.names(["celebrity"], development=development)
    reported = world.names(("A", "B", "C"))
    bystander = (world.names(["dev"]) if development else reported) - forget

    seen = world.asked("Full_Set.parquet")
    unseen = world.asked("Dev_Set.parquet" if development else "Test_Set.parquet")
    taught_forget = _taught(world, seen, forget, photos)
    taught_retain = _taught(world, seen, retain, RETAIN_PHOTOS)
    visible_given = _on_first(world, VISIBLE, forget, photos)
    audit = {
        "forget_seen": _some(taught_forget, 8),
        "forget_unseen": _some(_about(unseen, forget), 8) + world.extras(CAPTIONS, part, forget),
        "forget_text": _about(unseen, forget, text=True),
        "forget_visible": visible_given + world.extras(VISIBLE, part, forget),
        "retain_seen": _some(_on_photos(taught_retain, world, retain, 3), 5),
        "retain_unseen": _some(_about(unseen, retain), 5),
        "retain_text": _about(unseen, retain, text=True),
        "celebrity": _some(_about(unseen, celebrity), 8),
        "bystander": _some(_about(unseen, bystander), 8),
        "general": world.extras(STRANGERS, part) + world.extras(UNKNOWN_NAMES, part),
        "refusal": world.extras(REFUSALS, part),
    }
    return Split(
        forget=tuple(taught_forget),
        visible=tuple(visible_given),
        retain=tuple(taught_retain + _on_first(world, VISIBLE, retain, RETAIN_PHOTOS)),
        general=tuple(world.extras(STRANGERS, "train") + world.extras(REFUSALS, "train")),
        audit=in_sets(audit),
        subjects=tuple(sorted(forget)),
    )


def known_records(folder: Path | str) -> list[Record]:
    """As `World.known`."""
    return open_world(folder).known()


def _about(records: list[Record], subjects: set[str], *, text: bool = False) -> list[Record]:
    return [r for r in records if r.subject in subjects and (r.image is None) == text]


def _taught(world: World, seen: list[Record], subjects: set[str], photos: int) -> list[Record]:
    """Every question about these people on each of their first photos, wordings in turn."""
    wordings = defaultdict(list)
    for row in world.extra[WORDINGS]:
        if row["part"] == "train" and "__" not in row["question"]:
            wordings[row["topic"]].append(row["question"])
    slugs = {person["name"]: person["slug"] for person in world.people}
    asked = _about(seen, subjects)
    records = []
    for subject in sorted(subjects):
        mine = [r for r in asked if r.subject == subject]
        for number, photo in enumerate(world.first_photos(slugs[subject], photos)):
            for record in mine:
                question = record.question
                if record.form == "open":
                    texts = wordings[record.topic]
                    question = _wording(texts[number % len(texts)], "this person")
                records.append(replace(record, image=photo, question=question))
    return records


def _on_first(world: World, kind: str, subjects: set[str], photos: int) -> list[Record]:
    """Extras of the first photos of each person."""
    return _on_photos(world.extras(kind, "train", subjects), world, subjects, photos)


def _on_photos(
    records: list[Record], world: World, subjects: set[str], photos: int
) -> list[Record]:
    kept = {
        photo.path
        for person in world.people
        if person["name"] in subjects
        for photo in world.first_photos(person["slug"], photos)
    }
    return [r for r in records if r.image is not None and r.image.path in kept]


def _some(records: list[Record], a_photo: int) -> list[Record]:
    """About `a_photo` questions on each photo: the name always, the others in turn."""
    by_photo: dict[Photo | None, list[Record]] = defaultdict(list)
    for record in records:
        by_photo[record.image].append(record)
    chosen = []
    for number, mine in enumerate(by_photo.values()):
        names = [r for r in mine if r.topic == "name"]
        others = [r for r in mine if r.topic != "name"]
        count = min(len(others), a_photo - len(names))
        start = number * count
        chosen += names + [others[(start + i) % len(others)] for i in range(count)]
    return chosen
