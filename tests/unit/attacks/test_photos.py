import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unsee.attacks import ATTACKS
from unsee.attacks.photos import in_corner, side_by_side
from unsee.attacks.pictures import LONGEST_SIDE_PX, opened
from unsee.attacks.protocol import Given
from unsee.attacks.typographic import with_text
from unsee.data.images import Photo

Noise, Crop, Occlusion = (ATTACKS.get(name) for name in ("noise", "crop", "occlusion"))
ON_PHOTOS = ("noise", "crop", "blur", "occlusion", "colour", "flip", "collage", "typographic")


def pixels(photo):
    return np.asarray(photo.open(), dtype=int)


def posed(attack, vlm, split, asked, seed=0):
    return [one.ask(asked, lambda r: []) for one in attack.tries(vlm, Given(split, seed=seed))]


@pytest.mark.parametrize("name", ON_PHOTOS)
def test_photos_are_changed_alike_each_time_and_keep_their_size(name, tiny_vlm, split, asked):
    first, again = (posed(ATTACKS.get(name)(), tiny_vlm, split, asked) for _ in range(2))
    assert first == again
    assert first
    for records in first:
        assert records[2] is None
        for record, before in zip(records[:2], asked, strict=False):
            assert record.image.open().size == before.image.open().size
            assert np.abs(pixels(record.image) - pixels(before.image)).mean() > 0.1
            assert record.answer == before.answer


def test_another_seed_draws_otherwise(tiny_vlm, split, asked):
    one, other = (posed(Noise(), tiny_vlm, split, asked, seed)[0][0] for seed in (0, 1))
    assert one.image != other.image


def test_tries_of_an_attack_differ(tiny_vlm, split, asked):
    first, second = posed(Occlusion(places=2), tiny_vlm, split, asked)
    assert first[0].image != second[0].image


def apply(attack, name, picture):
    return np.asarray(attack.changes()[name](picture, random.Random(0)), dtype=int)


GREY = Image.new("RGB", (40, 20), (100, 100, 100))


def test_noise_is_as_strong_as_it_says():
    wide = GREY.resize((400, 400))
    noise = apply(Noise(deviation=0.1), "normal", wide) - 100
    assert noise.std() == pytest.approx(25.5, rel=0.02)
    specks = apply(Noise(specks=0.1), "specks", wide)
    assert (specks == 0).mean() == pytest.approx(0.05, abs=0.01)
    assert (specks == 255).mean() == pytest.approx(0.05, abs=0.01)


def test_a_crop_is_the_middle():
    picture = Image.new("RGB", (40, 40), "white")
    picture.paste((0, 0, 0), (10, 10, 30, 30))
    # Pixels at the edge are mixed with what lies beyond it.
    middle = apply(Crop(share=0.5), "middle", picture)[4:-4, 4:-4]
    assert (middle == 0).all()
    assert np.asarray(picture)[4:-4, 4:-4].mean() > 100
    assert apply(Crop(share=1), "anywhere", picture).tolist() == np.asarray(picture).tolist()


def test_a_rectangle_covers_its_share():
    covered = apply(Occlusion(side=0.5), "place 1", GREY)
    assert (covered == 128).all(2).sum() == 20 * 10


def test_a_collage_keeps_both_people():
    red, blue = Image.new("RGB", (40, 20), "red"), Image.new("RGB", (9, 9), "blue")
    page = side_by_side(red, blue)
    assert page.getpixel((5, 10)) == (255, 0, 0)
    assert page.getpixel((35, 10)) == (0, 0, 255)
    page = in_corner(red, blue, 0.5)
    assert page.getpixel((0, 0)) == (255, 0, 0)
    assert page.getpixel((39, 19)) == (0, 0, 255)


def test_without_anybody_else_there_is_no_collage(tiny_vlm, split):
    alone = replace(split, retain=(), general=())
    assert (
        ATTACKS.get("collage")().tries(tiny_vlm, Given(alone))
        == "there is no photo of anybody else"
    )


def test_a_large_photo_is_scaled_down(tmp_path):
    Image.new("RGB", (3000, 1500)).save(tmp_path / "large.png")
    assert opened(Photo(path=tmp_path / "large.png")).size == (LONGEST_SIDE_PX, 512)


def test_the_question_is_drawn_below_the_photo():
    page = np.asarray(with_text(Image.new("RGB", (300, 200), "red"), "Who is this?", 0.3))
    assert (page[:140, 60:240] == (255, 0, 0)).all()
    band = page[140:]
    assert (band == 0).all(2).sum() > 50
    assert (band == 255).all(2).mean() > 0.5
    # The smallest letters, where nothing fits.
    assert with_text(Image.new("RGB", (16, 16)), "A long question " * 9, 0.3).size == (16, 16)
