"""Seeded variants of a photo, so that a handful of photos stands for more of them."""

import random
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter

from unsee.data.images import Photo


def variant(photo: Photo, number: int) -> Image.Image:
    """One variant of a photo; the same photo and number always give the same picture.

    Args:
        photo: The photo as it is stored.
        number: 0 for the photo itself, 1.. for variants that are moved, turned, zoomed, mirrored,
            relit, lit from one side, recoloured, blurred or partly covered.

    Returns:
        RGB picture of the photo's size.

    Raises:
        DataError: If the photo cannot be opened.
    """
    picture = photo.open()
    if number == 0:
        return picture
    rng = random.Random(f"{photo.key}-{number}")
    picture = _move(picture, rng)
    if rng.random() < 0.3:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance, spread in (
        (ImageEnhance.Brightness, 0.3),
        (ImageEnhance.Contrast, 0.25),
        (ImageEnhance.Color, 0.3),
    ):
        picture = enhance(picture).enhance(rng.uniform(1 - spread, 1 + spread))
    if rng.random() < 0.5:
        picture = _light(picture, rng)
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 48 * 0.6))
    if rng.random() < 0.4:
        picture = _cover(picture, rng)
    return picture


def _move(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Turned by up to 12 degrees, zoomed by up to 15 %, moved by up to 8 %."""
    width, height = picture.size
    degrees = rng.uniform(-12, 12)
    # Pillow's annotation asks for whole pixels; fractions are what it computes with.
    moved: Any = (rng.uniform(-0.08, 0.08) * width, rng.uniform(-0.08, 0.08) * height)
    turned = picture.rotate(
        degrees,
        resample=Image.Resampling.BILINEAR,
        translate=moved,
        fillcolor=_edge_colour(picture),
    )
    zoom = rng.uniform(0.87, 1.15)
    x, y = width / 2, height / 2
    return turned.transform(
        picture.size,
        Image.Transform.AFFINE,
        (1 / zoom, 0, x - x / zoom, 0, 1 / zoom, y - y / zoom),
        resample=Image.Resampling.BILINEAR,
        fillcolor=_edge_colour(picture),
    )


def _light(picture: Image.Image, rng: random.Random) -> Image.Image:
    """One side up to half as bright again, the other up to half as dark."""
    strength = rng.uniform(-0.5, 0.5)
    across = Image.linear_gradient("L").rotate(rng.choice((0, 90))).resize(picture.size)
    dark = ImageEnhance.Brightness(picture).enhance(1 - strength)
    bright = ImageEnhance.Brightness(picture).enhance(1 + strength)
    return Image.composite(bright, dark, across)


def _edge_colour(picture: Image.Image) -> tuple[int, ...]:
    """Colour of the upper left corner: uncovered areas then look like background."""
    colour = picture.getpixel((0, 0))
    return colour if isinstance(colour, tuple) else (0, 0, 0)


def _cover(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A rectangle of up to a quarter of each side painted over."""
    width, height = picture.size
    w = max(1, int(width * rng.uniform(0.1, 0.25)))
    h = max(1, int(height * rng.uniform(0.1, 0.25)))
    covered = picture.copy()
    colour = tuple(rng.randrange(256) for _ in range(3))
    corner = (rng.randrange(width - w + 1), rng.randrange(height - h + 1))
    covered.paste(colour, (*corner, corner[0] + w, corner[1] + h))
    return covered
