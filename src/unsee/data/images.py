"""Photos from files or bytes: opened upright, in RGB, or refused in one line."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import ExifTags, Image

from unsee.errors import DataError, PhotoError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".pgm")
SMALLEST_SIDE_PX = 16
# Processors scale the short side up to what the model sees: a strip of 16 x 20,000 pixels would
# grow to gigabytes there, and Qwen2-VL's refuses what is longer than 200 times its width.
LONGEST_TO_SHORTEST = 100
# Only these decoders run: the rest of Pillow's plugins is attack surface that no reader needs.
_DECODERS = ("JPEG", "PNG", "WEBP", "PPM")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


@runtime_checkable
class Stored(Protocol):
    """Encoded bytes that lie elsewhere, and are read when they are asked for."""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, hexadecimal."""
        ...

    @property
    def name(self) -> str:
        """Where they lie, for messages."""
        ...

    def read(self) -> bytes:
        """The bytes themselves."""
        ...


@dataclass(frozen=True)
class Photo:
    """One photo, kept as a path, as encoded bytes or as their place; only `open` decodes pixels.

    Attributes:
        path: File to read. With `data` it only names the photo in messages.
        data: Encoded image.
        stored: Where the encoded image lies, such as a row of a parquet file.
    """

    path: Path | None = None
    data: bytes | None = None
    stored: Stored | None = None

    def __post_init__(self) -> None:
        if self.path is None and self.data is None and self.stored is None:
            raise DataError("photo: expected a path or bytes, got neither; give one of them")

    @property
    def name(self) -> str:
        """Words for messages: the path, the place, or the key of the bytes; never the content."""
        if self.path is not None:
            return str(self.path)
        return self.stored.name if self.stored is not None else f"photo {self.key}"

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the encoded bytes."""
        if self.stored is not None:
            return self.stored.digest[:16]
        return hashlib.sha256(self.read()).hexdigest()[:16]

    def read(self) -> bytes:
        """Encoded bytes of the photo.

        Raises:
            DataError: If the file cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.stored is not None:
            return self.stored.read()
        if self.path is None:
            raise DataError("photo: expected a path or bytes, got neither; give one of them")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path}: expected a readable photo, got {error.strerror}; "
                "check the path and its permissions"
            ) from error

    def open(self) -> Image.Image:
        """Decoded photo in RGB, EXIF rotation applied, transparency laid on white.

        Raises:
            DataError: If the photo cannot be read.
            PhotoError: If it does not decode, has a side under `SMALLEST_SIDE_PX`, is longer than
                `LONGEST_TO_SHORTEST` times its short side, or has more pixels than Pillow considers
                safe. Damaged EXIF data is no such fault.
        """
        encoded = self.read()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF data
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(encoded), formats=_DECODERS) as image:
                    self._check_size(*image.size)
                    rgb = _to_rgb(_upright(image))
        except PhotoError:
            raise
        except _BOMBS as error:
            raise PhotoError(
                f"{self.name}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more; "
                "scale the photo down or leave it out"
            ) from error
        except _UNREADABLE as error:
            raise PhotoError(
                f"{self.name}: expected a readable jpg, png, webp or pgm image, "
                f"got {len(encoded)} bytes that do not decode; replace or remove the file"
            ) from error
        return rgb

    def _check_size(self, width: int, height: int) -> None:
        if min(width, height) < SMALLEST_SIDE_PX:
            raise PhotoError(
                f"{self.name}: expected at least {SMALLEST_SIDE_PX} pixels a side, "
                f"got {width} x {height}; use a larger photo"
            )
        if max(width, height) > LONGEST_TO_SHORTEST * min(width, height):
            raise PhotoError(
                f"{self.name}: expected sides of at most {LONGEST_TO_SHORTEST} to 1, "
                f"got {width} x {height}; cut the face out"
            )


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF data says it is to be shown; what cannot be read turns nothing."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation)
    except (*_UNREADABLE, TypeError, KeyError):
        return image
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB; 16-bit grey is scaled, since Pillow's own conversion clips it."""
    if image.mode.startswith("I"):
        scaled = np.asarray(image, dtype=np.float64) / 257
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
