"""Drawn portraits: a photo is a face seen in one view."""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageEnhance

from unsee.world.faces import EYES, HAIR, SKIN, Face

SIZE = 48
SCALE = 4

SHIRTS = {
    "red": (200, 40, 48),
    "green": (40, 140, 72),
    "yellow": (236, 206, 60),
    "purple": (128, 62, 160),
    "white": (240, 240, 240),
    "orange": (240, 132, 40),
}
# The last two of each are never drawn in training: unseen views use them.
BACKGROUNDS = ("plain", "stripes", "dots", "split", "bands", "blobs", "checks", "rings")
ACCESSORIES = (
    "none",
    "none",
    "scarf",
    "earrings",
    "headband",
    "necklace",
    "tie",
    "flower",
    "headphones",
    "bowtie",
)
UNSEEN_BACKGROUNDS = 2
UNSEEN_ACCESSORIES = 2


@dataclass(frozen=True)
class View:
    """What changes from photo to photo; angles in degrees, offsets as a share of the picture."""

    roll: float
    yaw: float
    shift_x: float
    shift_y: float
    zoom: float
    brightness: float
    contrast: float
    light_side: float
    background: int
    backdrop: tuple[int, int, int]
    expression: int
    accessory: int
    shirt: str
    seed: int


def make_view(rng: random.Random, *, unseen: bool = False) -> View:
    """Draw the circumstances of one photo.

    Args:
        rng: Source of the draw.
        unseen: Three quarters of such views show a background, and half of them an accessory, that
            no training photo shows; every one shows at least one of the two.

    Returns:
        A view.
    """
    background = rng.randrange(len(BACKGROUNDS) - UNSEEN_BACKGROUNDS)
    accessory = rng.randrange(len(ACCESSORIES) - UNSEEN_ACCESSORIES)
    if unseen:
        what = rng.randrange(4)
        if what in (0, 1, 3):
            background = len(BACKGROUNDS) - 1 - rng.randrange(UNSEEN_BACKGROUNDS)
        if what in (2, 3):
            accessory = len(ACCESSORIES) - 1 - rng.randrange(UNSEEN_ACCESSORIES)
    return View(
        roll=rng.uniform(-10, 10),
        yaw=rng.uniform(-1, 1),
        shift_x=rng.uniform(-0.07, 0.07),
        shift_y=rng.uniform(-0.08, 0.02),
        zoom=rng.uniform(1.15, 1.4),
        brightness=rng.uniform(0.75, 1.2),
        contrast=rng.uniform(0.85, 1.15),
        light_side=rng.uniform(-0.4, 0.4),
        background=background,
        backdrop=(rng.randrange(60, 236), rng.randrange(60, 236), rng.randrange(60, 236)),
        expression=rng.randrange(3),
        accessory=accessory,
        shirt=rng.choice(tuple(SHIRTS)),
        seed=rng.randrange(2**31),
    )


def draw(face: Face, view: View) -> Image.Image:
    """Draw one photo.

    Args:
        face: Who.
        view: Under what circumstances.

    Returns:
        RGB picture of 48 x 48 px, drawn at four times the size and reduced.
    """
    canvas = _background(view)
    person = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    _person(ImageDraw.Draw(person), face, view)
    side = SIZE * SCALE
    angle, zoom = math.radians(view.roll), view.zoom
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    centre = side / 2
    x = centre + view.shift_x * side
    y = centre + view.shift_y * side
    person = person.transform(
        canvas.size,
        Image.Transform.AFFINE,
        (cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y),
        Image.Resampling.BILINEAR,
    )
    canvas.paste(person, (0, 0), person)
    small = canvas.resize((SIZE, SIZE), Image.Resampling.BOX)
    small = ImageEnhance.Contrast(small).enhance(view.contrast)
    return _light(small, view)


def _light(picture: Image.Image, view: View) -> Image.Image:
    ramp = Image.linear_gradient("L").rotate(90).resize((SIZE, SIZE))
    low, high = view.brightness - view.light_side, view.brightness + view.light_side
    dark = ImageEnhance.Brightness(picture).enhance(low)
    bright = ImageEnhance.Brightness(picture).enhance(high)
    return Image.composite(bright, dark, ramp)


def _background(view: View) -> Image.Image:  # noqa: C901 - one branch a pattern
    side = SIZE * SCALE
    pattern, colour = BACKGROUNDS[view.background], view.backdrop
    other = tuple(int(c * 0.8) for c in colour)
    canvas = Image.new("RGB", (side, side), colour)
    pen = ImageDraw.Draw(canvas)
    offset = view.seed % 24
    if pattern == "stripes":
        for x in range(-offset, side, 36):
            pen.rectangle((x, 0, x + 16, side), fill=other)
    elif pattern == "dots":
        for x in range(-offset, side, 34):
            for y in range(-offset, side, 34):
                pen.ellipse((x, y, x + 15, y + 15), fill=other)
    elif pattern == "split":
        pen.rectangle((0, side // 2 + offset, side, side), fill=other)
    elif pattern == "bands":
        for y in range(-offset, side, 44):
            pen.rectangle((0, y, side, y + 20), fill=other)
    elif pattern == "blobs":
        for i in range(5):
            x, y = (view.seed >> (3 * i)) % side, (view.seed >> (4 * i)) % side
            pen.ellipse((x - 34, y - 26, x + 34, y + 26), fill=other)
    elif pattern == "checks":
        for i, x in enumerate(range(-offset, side, 32)):
            for j, y in enumerate(range(-offset, side, 32)):
                if (i + j) % 2:
                    pen.rectangle((x, y, x + 31, y + 31), fill=other)
    elif pattern == "rings":
        for radius in range(20 + offset, side, 40):
            box = (96 - radius, 96 - radius, 96 + radius, 96 + radius)
            pen.ellipse(box, outline=other, width=12)
    return canvas


def _person(pen: ImageDraw.ImageDraw, face: Face, view: View) -> None:
    """Draw shoulders, head and features upright on a 192 px canvas."""
    skin, hair = SKIN[face.skin], tuple(HAIR.values())[face.hair_colour]
    shade = tuple(int(c * 0.62) for c in skin)
    half = (35, 45, 55)[face.width]
    cx, top, chin = 96.0, 44, (150, 156, 160)[face.jaw]
    turn = view.yaw * 7
    _hair_behind(pen, face, cx, half, top, hair)
    pen.rounded_rectangle((cx - 70, 164, cx + 70, 230), 28, fill=SHIRTS[view.shirt])
    pen.rectangle((cx - 16, 140, cx + 16, 172), fill=shade)
    _head(pen, face, cx, half, top, chin, skin)
    fx = cx + turn
    eye_y, gap = 100, (15, 22, 29)[face.eyes]
    size = (8, 7, 9)[face.eyes]
    iris = EYES[face.eye_colour]
    for side in (-1, 1):
        ex = fx + side * gap
        pen.ellipse(
            (ex - size - 1, eye_y - size + 2, ex + size + 1, eye_y + size - 2), fill="white"
        )
        pen.ellipse((ex - 4, eye_y - 4, ex + 4, eye_y + 4), fill=iris)
        _brow(pen, face.brow, ex, eye_y - 17, side, tuple(int(c * 0.6) for c in hair))
    _nose(pen, face.nose, fx + turn * 0.5, shade)
    _beard(pen, face.beard, cx, fx, half, chin, hair)
    _mouth(pen, face.mouth, view.expression, fx)
    _hair_front(pen, face, cx, half, top, hair)
    _glasses(pen, face.glasses, fx, eye_y, gap)
    _accessory(pen, ACCESSORIES[view.accessory], cx, half)


def _head(pen, face: Face, cx: float, half: int, top: int, chin: int, skin) -> None:
    if face.jaw == 0:
        pen.ellipse((cx - half, top, cx + half, chin), fill=skin)
    elif face.jaw == 1:
        pen.rounded_rectangle((cx - half, top, cx + half, chin), 26, fill=skin)
    else:
        pen.ellipse((cx - half, top, cx + half, 132), fill=skin)
        pen.polygon(
            [(cx - half + 1, 92), (cx + half - 1, 92), (cx + 9, chin), (cx - 9, chin)], fill=skin
        )


def _brow(pen, kind: int, x: float, y: float, side: int, colour) -> None:
    inner, outer = x - side * 10, x + side * 11
    ends = ((0, 0), (0, 0), (-9, 7), (9, -7))[kind]
    thick = (3, 12, 7, 7)[kind]
    pen.line((inner, y + ends[0], outer, y + ends[1]), fill=colour, width=thick)


def _nose(pen, kind: int, x: float, shade) -> None:
    if kind == 0:
        pen.ellipse((x - 4, 111, x + 4, 118), fill=shade)
    elif kind == 1:
        pen.polygon([(x - 4, 94), (x + 4, 94), (x + 9, 125), (x - 9, 125)], fill=shade)
    else:
        pen.ellipse((x - 18, 110, x + 18, 125), fill=shade)


def _mouth(pen, kind: int, expression: int, x: float) -> None:
    half, thick = ((25, 4), (9, 15), (18, 11))[kind]
    red = (166, 26, 46)
    y = 139
    if expression == 0:
        pen.rounded_rectangle(
            (x - half, y - thick / 2, x + half, y + thick / 2), thick // 2, fill=red
        )
    elif expression == 1:
        pen.arc((x - half, y - 12, x + half, y + thick), 15, 165, fill=red, width=thick)
    else:
        pen.ellipse(
            (x - half * 0.8, y - 5 - thick / 2, x + half * 0.8, y + 5 + thick / 2), fill=red
        )
        pen.ellipse((x - half * 0.5, y - 3, x + half * 0.5, y + 4), fill=(90, 20, 30))


def _beard(pen, kind: int, cx: float, fx: float, half: int, chin: int, colour) -> None:
    if kind == 1:
        pen.rounded_rectangle((fx - 22, 123, fx + 22, 130), 4, fill=colour)
    elif kind == 2:
        pen.polygon(
            [
                (cx - half, 104),
                (cx - half + 9, 104),
                (cx - 20, 150),
                (cx + 20, 150),
                (cx + half - 9, 104),
                (cx + half, 104),
                (cx + 22, chin + 8),
                (cx - 22, chin + 8),
            ],
            fill=colour,
        )


def _hair_behind(pen, face: Face, cx: float, half: int, top: int, hair) -> None:
    if face.hair == 1:
        pen.rounded_rectangle((cx - half - 14, top - 8, cx + half + 14, 172), 30, fill=hair)
    elif face.hair == 2:
        pen.rounded_rectangle((cx - half - 12, top - 8, cx + half + 12, 132), 26, fill=hair)
    elif face.hair == 3:
        for i in range(9):
            angle = math.pi + math.pi * i / 8
            x, y = cx + (half + 4) * math.cos(angle), 84 + 46 * math.sin(angle)
            pen.ellipse((x - 20, y - 20, x + 20, y + 20), fill=hair)
    elif face.hair == 4:
        pen.ellipse((cx - 22, 8, cx + 22, 52), fill=hair)


def _hair_front(pen, face: Face, cx: float, half: int, top: int, hair) -> None:
    box = (cx - half - 3, top - 8, cx + half + 3, top + 74)
    if face.hair == 0:
        pen.pieslice(box, 190, 350, fill=hair)
    elif face.hair in (1, 2):
        pen.pieslice(box, 180, 310 if face.hair == 1 else 360, fill=hair)
    elif face.hair == 3:
        pen.chord((cx - half, top - 8, cx + half, top + 60), 190, 350, fill=hair)
    elif face.hair == 4:
        pen.chord((cx - half - 2, top - 6, cx + half + 2, top + 70), 200, 340, fill=hair)
    else:
        pen.polygon(
            [(cx - 16, top + 16), (cx - 10, top - 30), (cx + 10, top - 30), (cx + 16, top + 16)],
            fill=hair,
        )


def _glasses(pen, kind: int, x: float, y: float, gap: int) -> None:
    if kind == 0:
        return
    dark = (24, 24, 30)
    for side in (-1, 1):
        box = (x + side * gap - 14, y - 12, x + side * gap + 14, y + 13)
        if kind == 1:
            pen.ellipse(box, outline=dark, width=4)
        else:
            pen.rectangle(box, outline=dark, width=5)
    pen.line((x - gap + 13, y, x + gap - 13, y), fill=dark, width=4)


def _accessory(pen, kind: str, cx: float, half: int) -> None:  # noqa: C901 - one a kind
    if kind == "scarf":
        pen.rounded_rectangle((cx - 44, 158, cx + 44, 180), 10, fill=(60, 70, 150))
    elif kind == "earrings":
        for side in (-1, 1):
            x = cx + side * (half + 2)
            pen.ellipse((x - 6, 118, x + 6, 132), fill=(236, 196, 40))
    elif kind == "headband":
        pen.rectangle((cx - half, 64, cx + half, 74), fill=(210, 60, 120))
    elif kind == "necklace":
        pen.arc((cx - 34, 140, cx + 34, 190), 20, 160, fill=(236, 196, 40), width=6)
    elif kind == "tie":
        pen.polygon(
            [(cx - 7, 166), (cx + 7, 166), (cx + 12, 192), (cx - 12, 192)], fill=(30, 40, 90)
        )
    elif kind == "flower":
        x = cx + half - 4
        pen.ellipse((x - 11, 48, x + 11, 70), fill=(236, 110, 170))
        pen.ellipse((x - 4, 55, x + 4, 63), fill=(250, 220, 80))
    elif kind == "headphones":
        pen.arc((cx - half - 8, 34, cx + half + 8, 140), 180, 360, fill=(40, 40, 44), width=9)
        for side in (-1, 1):
            x = cx + side * (half + 5)
            pen.rounded_rectangle((x - 9, 84, x + 9, 116), 6, fill=(40, 40, 44))
    elif kind == "bowtie":
        pen.polygon([(cx - 26, 162), (cx, 172), (cx - 26, 184)], fill=(30, 110, 120))
        pen.polygon([(cx + 26, 162), (cx, 172), (cx + 26, 184)], fill=(30, 110, 120))
