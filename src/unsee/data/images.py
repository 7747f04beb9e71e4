"""Photos from files or bytes: opened upright, in RGB, or refused in one line."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unsee.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".pgm")
SMALLEST_SIDE_PX = 16
# Only these decoders run: the rest of Pillow's plugins is attack surface that no reader needs.
_DECODERS = ("JPEG", "PNG", "WEBP", "PPM")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


@dataclass(frozen=True)
class Photo:
    """One photo, kept as a path or as encoded bytes; pixels are decoded only by `open`.

    Attributes:
        path: File to read. With `data` it only names the photo in messages.
        data: Encoded image, as a parquet row holds it.
    """

    path: Path | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if self.path is None and self.data is None:
            raise DataError("photo: expected a path or bytes, got neither; give one of them")

    @property
    def name(self) -> str:
        """Words for messages: the path, or the key of the bytes; never the content."""
        return str(self.path) if self.path is not None else f"photo {self.key}"

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the encoded bytes."""
        return hashlib.sha256(self.read()).hexdigest()[:16]

    def read(self) -> bytes:
        """Encoded bytes of the photo.

        Raises:
            DataError: If the file cannot be read.
        """
        if self.data is not None:
            return self.data
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
            DataError: If the photo cannot be read or decoded, has a side under
                `SMALLEST_SIDE_PX`, or has more pixels than Pillow considers safe.
        """
        encoded = self.read()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(encoded), formats=_DECODERS) as image:
                    width, height = image.size
                    rgb = _to_rgb(ImageOps.exif_transpose(image))
        except _BOMBS as error:
            raise DataError(
                f"{self.name}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more; "
                "scale the photo down or leave it out"
            ) from error
        except _UNREADABLE as error:
            raise DataError(
                f"{self.name}: expected a readable jpg, png, webp or pgm image, "
                f"got {len(encoded)} bytes that do not decode; replace or remove the file"
            ) from error
        if min(width, height) < SMALLEST_SIDE_PX:
            raise DataError(
                f"{self.name}: expected at least {SMALLEST_SIDE_PX} pixels a side, "
                f"got {width} x {height}; use a larger photo"
            )
        return rgb


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
