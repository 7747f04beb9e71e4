import hashlib
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from unsee.data.images import Photo
from unsee.errors import DataError


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two_halves(width=40, height=20):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_opens_the_promised_kinds(tmp_path, kind, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(two_halves(), kind))
    image = Photo(path=path).open()
    assert (image.mode, image.size) == ("RGB", (40, 20))
    colours = np.asarray(image)
    assert colours[10, 5, 0] > 200
    assert colours[10, 35, 2] > 200


def test_opens_grey_pgm(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 16 16 255\n" + bytes(range(256)))
    image = Photo(path=path).open()
    assert image.mode == "RGB"
    assert image.getpixel((15, 15)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    deep = Image.fromarray(np.full((16, 16), 0x8000, dtype=np.uint16))
    assert Photo(data=encoded(deep)).open().getpixel((0, 0)) == (128, 128, 128)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = Photo(data=encoded(two_halves(), exif=exif)).open()
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)
    assert image.getpixel((10, 35)) == (0, 0, 255)


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert Photo(data=encoded(image)).open().getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_transparency_is_laid_on_white():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert Photo(data=encoded(image)).open().getpixel((0, 0)) == (10, 20, 30)
    assert Photo(data=encoded(image, transparency=0)).open().getpixel((0, 0)) == (255, 255, 255)


def marked(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_wrong_exif_rotation_turns_nothing(orientation):
    image = Photo(data=encoded(two_halves(), exif=marked(orientation))).open()
    assert image.size == (40, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_is_no_fault(kind):
    whole = marked(6).tobytes()
    for cut in (7, 10, 15, 20, len(whole) - 3):
        broken = encoded(two_halves(), kind, exif=whole[:cut] + bytes(2))
        assert min(Photo(data=broken).open().size) == 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_rotation_is_that_of_pillow(orientation):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    data = encoded(image, exif=marked(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert Photo(data=data).open().tobytes() == expected.tobytes()


def test_no_bytes_give_anything_but_a_photo_or_a_fault():
    rng = random.Random(0)
    seeds = [encoded(two_halves(), kind) for kind in ("PNG", "WEBP", "PPM")]
    seeds += [encoded(two_halves(), kind, exif=marked(6)) for kind in ("JPEG", "WEBP", "PNG")]
    refused = 0
    for _ in range(600):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        try:
            Photo(data=bytes(data[: rng.choice((None, rng.randrange(len(data))))])).open()
        except DataError:
            refused += 1
    assert 100 < refused < 600


def test_one_pixel():
    with pytest.raises(DataError, match="expected at least 16 pixels a side, got 1 x 1; use a l"):
        Photo(data=encoded(Image.new("RGB", (1, 1)))).open()


def test_a_long_strip_is_refused_and_a_panorama_is_not():
    with pytest.raises(DataError, match="sides of at most 100 to 1, got 20000 x 16; cut the face"):
        Photo(data=encoded(Image.new("L", (20_000, 16)))).open()
    assert Photo(data=encoded(Image.new("L", (20_000, 200)))).open().size == (20_000, 200)


def test_twenty_thousand_pixels_a_side_are_refused_before_they_are_decoded():
    header = b"P5 20000 20000 255\n"
    with pytest.raises(DataError) as caught:
        Photo(data=header).open()
    assert str(caught.value).endswith(
        "expected at most 89478485 pixels, got more; scale the photo down or leave it out"
    )


def test_key_is_the_hash_of_the_bytes(tmp_path):
    data = encoded(two_halves())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()[:16]
    assert Photo(path=path).key == Photo(data=data).key == expected
    assert Photo(data=data).name == f"photo {expected}"


def test_too_small(tmp_path):
    with pytest.raises(DataError, match="expected at least 16 pixels a side, got 40 x 15"):
        Photo(data=encoded(two_halves(height=15))).open()
    Photo(data=encoded(two_halves(height=16))).open()


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(two_halves())[:60]])
def test_unreadable_names_the_file(tmp_path, data):
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"broken\.png: expected a readable jpg, png, webp or pgm"):
        Photo(path=path).open()


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: expected a readable photo, got No such file"):
        Photo(path=tmp_path / "gone.png").open()


@pytest.mark.parametrize("limit", [500, 200])
def test_decompression_bomb_is_refused(monkeypatch, limit):
    # Pillow warns above the limit and raises above twice the limit; both are faults here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=f"expected at most {limit} pixels"):
        Photo(data=encoded(two_halves())).open()


def test_other_decoders_do_not_run():
    with pytest.raises(DataError, match="expected a readable jpg, png, webp or pgm"):
        Photo(data=encoded(two_halves(), "GIF")).open()
