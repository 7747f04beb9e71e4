import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unsee.world.drawn import Drawn
from unsee.world.faces import (
    LEVELS,
    PALETTE,
    SHAPE,
    distance,
    make_faces,
    stranger_face,
    visible_attributes,
)
from unsee.world.folder import nearest_neighbour_accuracy, write_data
from unsee.world.portraits import (
    ACCESSORIES,
    BACKGROUNDS,
    UNSEEN_ACCESSORIES,
    UNSEEN_BACKGROUNDS,
    draw,
    make_view,
)

ROOT = Path(__file__).parents[3]
LAST_SEEN_BACKGROUND = len(BACKGROUNDS) - UNSEEN_BACKGROUNDS - 1
LAST_SEEN_ACCESSORY = len(ACCESSORIES) - UNSEEN_ACCESSORIES - 1


@pytest.fixture(scope="module")
def faces():
    return make_faces(48, 0)


@pytest.fixture
def view():
    return make_view(random.Random(0))


def test_look_alikes_share_the_palette_and_differ_in_shape(faces):
    assert (len(PALETTE), len(SHAPE)) == (5, 7)
    for first, second in zip(faces[::2], faces[1::2], strict=True):
        assert distance(first, second, PALETTE) == 0
        assert distance(first, second, SHAPE) >= 4


def test_no_two_people_look_nearly_the_same(faces):
    distances = [distance(a, b) for i, a in enumerate(faces) for b in faces[:i]]
    assert min(distances) >= 4


def test_features_stay_within_their_levels(faces):
    for name, levels in LEVELS.items():
        assert {getattr(face, name) for face in faces} <= set(range(levels))


@pytest.mark.parametrize("near", [True, False])
def test_strangers_keep_their_distance(faces, near):
    rng = random.Random(0)
    strangers = [stranger_face(faces, rng, near=near) for _ in range(200)]
    assert min(distance(s, f) for s in strangers for f in faces) >= 4
    if near:
        assert all(any(distance(s, f, PALETTE) == 0 for f in faces) for s in strangers)


def test_seen_views_never_show_what_is_kept_for_unseen_ones():
    rng = random.Random(0)
    views = [make_view(rng) for _ in range(2000)]
    assert {v.background for v in views} == set(range(LAST_SEEN_BACKGROUND + 1))
    assert {v.accessory for v in views} == set(range(LAST_SEEN_ACCESSORY + 1))


def test_every_unseen_view_shows_something_new():
    views = [
        Drawn(0).unseen_view(n, part, i)
        for n in range(48)
        for part in ("dev", "report")
        for i in range(6)
    ]
    new_backgrounds = {v.background for v in views if v.background > LAST_SEEN_BACKGROUND}
    new_accessories = {v.accessory for v in views if v.accessory > LAST_SEEN_ACCESSORY}
    assert len(new_backgrounds) >= 2
    assert len(new_accessories) >= 2
    assert all(
        v.background > LAST_SEEN_BACKGROUND or v.accessory > LAST_SEEN_ACCESSORY for v in views
    )
    backgrounds = sum(v.background > LAST_SEEN_BACKGROUND for v in views)
    accessories = sum(v.accessory > LAST_SEEN_ACCESSORY for v in views)
    assert backgrounds / len(views) == pytest.approx(0.75, abs=0.1)
    assert accessories / len(views) == pytest.approx(0.5, abs=0.1)


def test_backgrounds_and_accessories_kept_back_differ_from_the_others():
    assert not set(BACKGROUNDS[:-UNSEEN_BACKGROUNDS]) & set(BACKGROUNDS[-UNSEEN_BACKGROUNDS:])
    assert not set(ACCESSORIES[:-UNSEEN_ACCESSORIES]) & set(ACCESSORIES[-UNSEEN_ACCESSORIES:])


def test_a_drawing_is_rgb_of_48_px_and_repeats(faces, view):
    picture = draw(faces[0], view)
    assert (picture.mode, picture.size) == ("RGB", (48, 48))
    assert picture.tobytes() == draw(faces[0], view).tobytes()


@pytest.mark.parametrize("feature", LEVELS)
def test_every_level_of_every_feature_shows_in_the_picture(faces, view, feature):
    # With the plainest hair, and without what would cover the face.
    face = replace(faces[0], glasses=0, beard=0, hair=0)
    calm = replace(view, accessory=0, expression=0, roll=0.0, yaw=0.0)
    drawn = [
        np.asarray(draw(replace(face, **{feature: level}), calm), dtype=float)
        for level in range(LEVELS[feature])
    ]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (np.abs(one - other).max(-1) > 16).sum() >= 4


@pytest.mark.parametrize("number", range(len(ACCESSORIES)))
def test_every_accessory_but_none_shows(faces, view, number):
    # From further away than photos are taken, which may crop a necklace.
    whole = replace(view, zoom=1.0, shift_y=0.0)
    bare = draw(faces[0], replace(whole, accessory=0))
    worn = draw(faces[0], replace(whole, accessory=number))
    assert (bare.tobytes() == worn.tobytes()) == (ACCESSORIES[number] == "none")


def test_accessories_that_training_never_shows_are_within_the_picture(faces):
    """Else an unseen view would show nothing new."""
    for number in range(LAST_SEEN_ACCESSORY + 1, len(ACCESSORIES)):
        for index in range(20):
            view = Drawn(0).unseen_view(index, "report", 0)
            bare, worn = (
                np.asarray(draw(faces[index], replace(view, accessory=n)), dtype=float)
                for n in (0, number)
            )
            assert (np.abs(bare - worn).max(-1) > 16).sum() >= 4


def test_visible_attributes_say_what_is_drawn(faces):
    face = replace(faces[0], hair_colour=3, hair=4, glasses=2, beard=1)
    assert visible_attributes(face) == {
        "visible:hair colour": "red",
        "visible:hair style": "bun",
        "visible:glasses": "yes",
        "visible:beard": "a moustache",
    }


@pytest.mark.slow
def test_pixels_alone_recognise_at_most_seven_photos_in_ten(tmp_path):
    """Above chance, or the photos would be noise."""
    card = json.loads((ROOT / "docs" / "results" / "world-card.json").read_text(encoding="utf-8"))
    write_data(tmp_path, Drawn(0))
    share = nearest_neighbour_accuracy(tmp_path)
    assert 5 / 48 < share <= 0.70
    assert share == pytest.approx(card["nearest_neighbour_accuracy"], abs=0.01)
