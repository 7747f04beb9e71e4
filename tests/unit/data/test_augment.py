import io

import numpy as np
import pytest
from PIL import Image

from unsee.data.augment import variant
from unsee.data.images import Photo
from unsee.errors import DataError


def photo(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


def noise(width, height, seed=0):
    """Coarse noise, so that neighbouring pixels resemble one another as in a photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def array(picture):
    return np.asarray(picture).astype(float)


def distance(one, other):
    return np.abs(array(one) - array(other)).mean()


def test_variant_zero_is_the_photo_itself():
    pixels = noise(48, 40)
    assert np.array_equal(np.asarray(variant(photo(pixels), 0)), pixels)


def test_a_number_always_gives_the_same_picture_and_each_number_another():
    face = photo(noise(48, 48))
    pictures = [variant(face, number) for number in range(16)]
    again = [variant(photo(noise(48, 48)), number) for number in range(16)]
    for one, other in zip(pictures, again, strict=True):
        assert one.tobytes() == other.tobytes()
    assert len({picture.tobytes() for picture in pictures}) == 16


def test_the_same_number_varies_different_photos_differently():
    one, other = np.full((48, 48, 3), 90, np.uint8), np.full((48, 48, 3), 91, np.uint8)
    # Of a plain photo, light, contrast and cover are left to see.
    changes = [
        [distance(variant(photo(p), n), Image.fromarray(p)) for n in range(1, 9)]
        for p in (one, other)
    ]
    assert not np.allclose(changes[0], changes[1], atol=3)


@pytest.mark.parametrize("size", [(16, 16), (17, 63), (300, 200)])
def test_variants_are_rgb_and_of_the_size_of_the_photo(size):
    face = photo(noise(*size))
    for number in range(12):
        picture = variant(face, number)
        assert (picture.mode, picture.size) == ("RGB", size)


def test_variants_show_the_same_photo():
    pixels = noise(48, 48)
    face, other = photo(pixels), Image.fromarray(noise(48, 48, seed=1))
    mirrored = Image.fromarray(pixels[:, ::-1].copy())
    for number in range(1, 33):
        picture = variant(face, number)
        near = min(distance(picture, Image.fromarray(pixels)), distance(picture, mirrored))
        assert 3 < near < distance(picture, other)


def test_some_variants_are_mirrored_and_most_are_not():
    # Dark on the left: what is dark on the right was mirrored.
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[:, 24:] = 200
    face = photo(pixels)
    halves = [array(variant(face, n)).mean((0, 2)) for n in range(1, 101)]
    mirrored = sum(h[:24].mean() > h[24:].mean() for h in halves)
    assert 18 <= mirrored <= 42


def test_what_a_move_uncovers_looks_like_the_background():
    pixels = np.full((48, 48, 3), (6, 100, 30), np.uint8)
    pixels[20:28, 20:28] = (120, 0, 0)
    face = photo(pixels)
    for number in range(1, 33):
        picture = array(variant(face, number))
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        # Light may fall from one side, but the hue changes for all pixels alike; only a cover may
        # touch the edge.
        hue = edge / edge.sum(1, keepdims=True)
        assert (np.abs(hue - np.median(hue, axis=0)).max(1) > 0.03).mean() < 0.3


def test_a_cover_paints_at_most_a_quarter_of_each_side_on_some_variants():
    face = photo(np.full((64, 64, 3), 120, np.uint8))
    covered = 0
    for number in range(1, 101):
        picture = array(variant(face, number))
        # The photo is grey in any light.
        rows, columns = np.where(np.ptp(picture, axis=2) > 2)
        if len(rows):
            covered += 1
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width
            assert max(height, width) <= 16
            assert min(height, width) >= 6
    assert 25 <= covered <= 55


def test_variants_differ_in_light():
    face = photo(np.full((32, 32, 3), 100, np.uint8))
    light = [np.median(array(variant(face, number))) for number in range(1, 65)]
    assert min(light) > 65
    assert max(light) < 135
    assert np.std(light) > 10


def test_some_variants_are_lit_from_one_side():
    face = photo(np.full((48, 48, 3), 100, np.uint8))
    lit = 0
    for number in range(1, 101):
        grey = np.median(array(variant(face, number)), axis=2)
        # From the left, the right, above or below; a cover hides little of a whole edge.
        across = abs(np.median(grey[:, :4]) - np.median(grey[:, -4:]))
        down = abs(np.median(grey[:4]) - np.median(grey[-4:]))
        lit += max(across, down) > 10
        assert min(across, down) < 25
    assert 30 <= lit <= 60


def test_an_unreadable_photo_is_named(tmp_path):
    path = tmp_path / "face.png"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"face\.png: expected a readable"):
        variant(Photo(path=path), 1)
