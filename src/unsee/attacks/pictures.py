"""Changed photos as photos of their own, so that answers to them are kept like any others."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from unsee.attacks.protocol import Asked, Tell
from unsee.data.images import Photo
from unsee.data.records import Record

# Changed copies are held in memory, one try at a time; models see less than this.
LONGEST_SIDE_PX = 1024

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
