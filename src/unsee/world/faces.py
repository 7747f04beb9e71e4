"""Faces of fictitious people: a palette that look-alikes share, and a shape of one's own."""

import random
from dataclasses import dataclass, fields, replace

SKIN = ((246, 214, 186), (226, 178, 138), (196, 140, 100), (150, 98, 66), (128, 84, 58))
HAIR = {
    "black": (28, 24, 28),
    "brown": (112, 66, 30),
    "blond": (226, 190, 98),
    "red": (186, 62, 30),
    "grey": (158, 160, 166),
    "blue": (52, 86, 190),
}
HAIR_STYLES = ("short", "long", "bob", "curly", "bun", "mohawk")
EYES = ((58, 40, 28), (60, 120, 190), (60, 140, 80))


@dataclass(frozen=True)
class Face:
    """What stays the same from photo to photo.

    The first five fields are the palette, shared by look-alikes; the other seven are shape.
    Every value is an index into a short list of levels.
    """

    skin: int
    hair_colour: int
    eye_colour: int
    glasses: int
    beard: int
    width: int
    jaw: int
    brow: int
    eyes: int
    nose: int
    mouth: int
    hair: int


LEVELS = {
    "skin": len(SKIN),
    "hair_colour": len(HAIR),
    "eye_colour": len(EYES),
    "glasses": 3,
    "beard": 3,
    "width": 3,
    "jaw": 3,
    "brow": 4,
    "eyes": 3,
    "nose": 3,
    "mouth": 3,
    "hair": 6,
}
PALETTE = ("skin", "hair_colour", "eye_colour", "glasses", "beard")
SHAPE = tuple(name for name in LEVELS if name not in PALETTE)


def distance(a: Face, b: Face, names: tuple[str, ...] = PALETTE + SHAPE) -> int:
    """Number of features in which two faces differ."""
    return sum(getattr(a, name) != getattr(b, name) for name in names)


def random_face(rng: random.Random) -> Face:
    """A face with every feature drawn independently."""
    return Face(**{name: rng.randrange(levels) for name, levels in LEVELS.items()})


def reshape(face: Face, changes: int, rng: random.Random) -> Face:
    """The same palette with `changes` shape features changed: a look-alike."""
    changed = {}
    for name in rng.sample(SHAPE, changes):
        changed[name] = (getattr(face, name) + rng.randrange(1, LEVELS[name])) % LEVELS[name]
    return replace(face, **changed)


def make_faces(count: int, seed: int = 0) -> list[Face]:
    """Faces of `count` people in look-alike pairs (2i, 2i + 1).

    Two of a pair share the whole palette and differ in at least four of seven shape features, so
    colours alone name nobody; any two people differ in at least four features.

    Args:
        count: Number of people, even.
        seed: Seeds the draw.

    Returns:
        One face a person.
    """
    rng = random.Random(f"faces-{seed}")
    faces: list[Face] = []
    while len(faces) < count:
        first = random_face(rng)
        second = reshape(first, rng.choice((4, 5)), rng)
        if all(distance(new, old) >= 4 for new in (first, second) for old in faces):
            faces += [first, second]
    return faces


def stranger_face(known: list[Face], rng: random.Random, *, near: bool) -> Face:
    """A face that belongs to nobody known.

    Args:
        known: Faces to keep away from.
        rng: Source of the draw.
        near: A look-alike of somebody known (same palette, five of seven shape features changed)
            instead of an independent face.

    Returns:
        A face that differs from every known one in at least four features.
    """
    while True:
        face = reshape(rng.choice(known), 5, rng) if near else random_face(rng)
        if all(distance(face, other) >= 4 for other in known):
            return face


def visible_attributes(face: Face) -> dict[str, str]:
    """What any stranger can see in the photos, as answers to visible-attribute questions."""
    return {
        "visible:hair colour": tuple(HAIR)[face.hair_colour],
        "visible:hair style": HAIR_STYLES[face.hair],
        "visible:glasses": "yes" if face.glasses else "no",
        "visible:beard": ("none", "a moustache", "a full beard")[face.beard],
    }


FEATURES = tuple(field.name for field in fields(Face))
