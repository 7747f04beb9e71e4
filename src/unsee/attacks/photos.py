"""The same question on a changed photo: what happens to photos on their way, and a little more.

After the rephrased images of UnLOK-VQA (Patil et al. 2024, https://arxiv.org/abs/2505.01456; the
easy ones are noise). All draws are seeded by the photo, so that base, erased and gold see the same.
"""

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from pydantic import Field

from unsee.attacks import ATTACKS
from unsee.attacks.pictures import Change, on_changed_photos, opened
from unsee.attacks.protocol import Given, Group, Try
from unsee.data.images import Photo
from unsee.models.load import VLM
from unsee.settings import Settings

_GREY = (128, 128, 128)


class _OnPhotos(Settings):
    """A change of the photos."""

    group: ClassVar[Group] = "images"

    @abstractmethod
    def changes(self) -> dict[str, Change]:
        """Changes by name, a try each."""

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a change."""
        return [
            Try(name, on_changed_photos(change, given.seed, name))
            for name, change in self.changes().items()
        ]


@ATTACKS.register("noise")
class Noise(_OnPhotos):
    """Normal noise on every pixel, and salt and pepper on some.

    Attributes:
        deviation: Of the normal noise, as a share of the way from black to white.
        specks: Share of pixels that become black or white.
    """

    deviation: float = Field(16 / 255, gt=0)
    specks: float = Field(0.02, gt=0, le=1)

    def changes(self) -> dict[str, Change]:
        """Normal, and salt and pepper."""
        return {"normal": self._normal, "specks": self._specks}

    def _normal(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        values = np.asarray(picture, dtype=np.float64)
        noise = _generator(rng).normal(0, 255 * self.deviation, values.shape)
        return _picture(values + noise)

    def _specks(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        values = np.array(picture, dtype=np.float64)
        draw = _generator(rng).random(values.shape[:2])
        values[draw < self.specks / 2] = 0
        values[draw > 1 - self.specks / 2] = 255
        return _picture(values)


@ATTACKS.register("crop")
class Crop(_OnPhotos):
    """A part of the photo, scaled up again: its middle, or wherever.

    Attributes:
        share: Of each side that stays.
    """

    share: float = Field(0.85, gt=0, le=1)

    def changes(self) -> dict[str, Change]:
        """The middle, and a place that is drawn."""
        return {"middle": self._middle, "anywhere": self._anywhere}

    def _middle(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        return self._cut(picture, 0.5, 0.5)

    def _anywhere(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        return self._cut(picture, rng.random(), rng.random())

    def _cut(self, picture: Image.Image, x: float, y: float) -> Image.Image:
        left, top = (
            (1 - self.share) * at * side for at, side in zip((x, y), picture.size, strict=True)
        )
        width, height = (self.share * side for side in picture.size)
        return picture.resize(
            picture.size,
            Image.Resampling.BICUBIC,
            box=(left, top, left + width, top + height),
        )


@ATTACKS.register("blur")
class Blur(_OnPhotos):
    """Gaussian blur.

    Attributes:
        radius: As a share of the longer side.
    """

    radius: float = Field(0.015, gt=0)

    def changes(self) -> dict[str, Change]:
        """One blur."""
        return {"blur": self._blur}

    def _blur(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(self.radius * max(picture.size)))


@ATTACKS.register("occlusion")
class Occlusion(_OnPhotos):
    """A grey rectangle over a part of the photo, wherever it falls.

    Attributes:
        side: Of the rectangle, as a share of each of the photo's.
        places: Places tried.
    """

    side: float = Field(0.25, gt=0, le=1)
    places: int = Field(2, ge=1)

    def changes(self) -> dict[str, Change]:
        """A try a place."""
        return {f"place {number + 1}": self._cover for number in range(self.places)}

    def _cover(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        width, height = (max(1, round(self.side * side)) for side in picture.size)
        left = rng.randint(0, picture.width - width)
        top = rng.randint(0, picture.height - height)
        covered = picture.copy()
        covered.paste(_GREY, (left, top, left + width, top + height))
        return covered


@ATTACKS.register("colour")
class Colour(_OnPhotos):
    """Other light: without colours, and brighter.

    Attributes:
        brightness: Factor of the light in the second try.
    """

    brightness: float = Field(1.3, gt=0)

    def changes(self) -> dict[str, Change]:
        """Grey, and brighter."""
        return {"grey": self._grey, "bright": self._bright}

    def _grey(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        return ImageOps.grayscale(picture).convert("RGB")

    def _bright(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        return ImageEnhance.Brightness(picture).enhance(self.brightness)


@ATTACKS.register("flip")
class Flip(_OnPhotos):
    """The photo in a mirror."""

    def changes(self) -> dict[str, Change]:
        """One mirror."""
        return {"mirror": lambda picture, rng: ImageOps.mirror(picture)}


@ATTACKS.register("collage")
class Collage(Settings):
    """Another person in the photo: in a corner, or side by side on grey.

    Attributes:
        inset: Side of the other photo in the corner, as a share of each of the photo's.
    """

    group: ClassVar[Group] = "images"

    inset: float = Field(0.3, gt=0, lt=1)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """In a corner, and beside; the others are people to keep, or else strangers."""
        others = _others(given)
        if not others:
            return "there is no photo of anybody else"

        def beside(picture: Image.Image, rng: random.Random) -> Image.Image:
            return side_by_side(picture, opened(rng.choice(others)))

        def corner(picture: Image.Image, rng: random.Random) -> Image.Image:
            return in_corner(picture, opened(rng.choice(others)), self.inset)

        return [
            Try(name, on_changed_photos(change, given.seed, name))
            for name, change in {"corner": corner, "beside": beside}.items()
        ]


def in_corner(picture: Image.Image, other: Image.Image, share: float) -> Image.Image:
    """A picture with another one over its lower right corner."""
    size = (max(1, round(share * picture.width)), max(1, round(share * picture.height)))
    page = picture.copy()
    page.paste(other.resize(size), (picture.width - size[0], picture.height - size[1]))
    return page


def side_by_side(picture: Image.Image, other: Image.Image) -> Image.Image:
    """Two pictures at half their size on one page of the first one's size, the first one left."""
    page = Image.new("RGB", picture.size, _GREY)
    half = (max(1, picture.width // 2), max(1, picture.height // 2))
    top = (picture.height - half[1]) // 2
    page.paste(picture.resize(half), (0, top))
    page.paste(other.resize(half), (half[0], top))
    return page


def _others(given: Given) -> list[Photo]:
    """One photo of each person who may stand beside somebody."""
    found: dict[str, Photo] = {}
    for record in given.split.retain or given.split.general:
        if record.image is not None:
            found.setdefault(record.subject, record.image)
    return list(found.values())


def _generator(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
