"""Changed photos as photos of their own, so that answers to them are kept like any others."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from unsee.attacks.protocol import Asked, Tell
from unsee.data.collate import Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.errors import ConfigError
from unsee.models.load import VLM
from unsee.perturb import pictures, pixel_space

# Changed copies are held in memory, one try at a time; models see less than this.
LONGEST_SIDE_PX = 1024
# Of a pixel, on the way to a picture of 256 levels and back.
_LEVEL = 1 / 255

Change = Callable[[Image.Image, random.Random], Image.Image]


def opened(photo: Photo) -> Image.Image:
    """The photo in RGB, scaled down to `LONGEST_SIDE_PX` where it is larger.

    Raises:
        DataError: If it cannot be opened.
    """
    picture = photo.open()
    picture.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    return picture


def photo_of(picture: Image.Image) -> Photo:
    """A picture as a photo, without loss and without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return Photo(data=buffer.getvalue())


def on_changed_photos(
    change: Change, seed: int, name: str
) -> Callable[[Sequence[Record], Tell], Asked]:
    """How to ask records on changed photos; one without a photo cannot be asked so.

    Args:
        change: Takes a photo and what to draw from; the same photo is always changed alike.
        seed: Of the draws.
        name: Of the try; others draw otherwise.
    """

    def ask(records: Sequence[Record], tell: Tell) -> Asked:
        changed: dict[Photo, Photo] = {}
        for record in records:
            if record.image is not None and record.image not in changed:
                rng = random.Random(f"{seed}-{name}-{record.image.key}")
                changed[record.image] = photo_of(change(opened(record.image), rng))
        return [
            replace(record, image=changed[record.image]) if record.image is not None else None
            for record in records
        ]

    return ask


def irreversible(vlm: VLM, split: Split) -> str:
    """Why pixel values cannot be drawn as a photo that gives them again; "" if they can.

    Args:
        vlm: Whose processor reads photos.
        split: One photo that the method was given is tried.
    """
    record = next((r for r in split.forget if r.image is not None), None)
    if record is None:
        return "the method was given no photos"
    of, read = vlm.processor.image_processor, _read(vlm, record)
    own = read.pixel_values
    if own is None:
        return f"photos of family {vlm.layout.family} have no pixel values"
    try:
        space = pixel_space(of, own)
        (picture,) = pictures(of, own, space, read.extra.get("image_grid_thw"))
    except ConfigError as error:
        return str(error)
    again = _read(vlm, replace(record, image=photo_of(picture))).pixel_values
    level = _LEVEL * space.scale
    if again is not None and again.shape == own.shape and ((again - own).abs() <= level).all():
        return ""
    return f"family {vlm.layout.family} takes a photo that was drawn from pixel values for another"


def _read(vlm: VLM, record: Record) -> Batch:
    return encode(vlm, [record], answers=False, side="left").to(vlm.device)
