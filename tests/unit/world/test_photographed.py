"""Photographed people as a source of pictures, and their world on disk."""

import io
import itertools
import random
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unsee.artifacts import atomic_write_json
from unsee.data.collate import IGNORED_LABEL
from unsee.data.images import Photo
from unsee.data.mllmu import read_rows
from unsee.data.world import Part, World, open_world, read_split
from unsee.metrics.answers import is_unknown
from unsee.requests import from_world
from unsee.world import questions as ask
from unsee.world.build import Recipe
from unsee.world.card import card_sets
from unsee.world.curriculum import corpus, photo_turns, render
from unsee.world.faces import LEVELS
from unsee.world.folder import nearest_neighbour_accuracy, write_data
from unsee.world.intake import read_photographed
from unsee.world.make import world_table
from unsee.world.photographed import Blend, DrawnStranger, Photograph, stored_photo

# So few that a candidate and everybody to keep have one photo each held out.
FEW = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_photographs):
    return write_photographs(tmp_path_factory.mktemp("people"), people=16, photos=FEW)


@pytest.fixture(scope="module")
def others(tmp_path_factory, photograph):
    home = tmp_path_factory.mktemp("others")
    for n in range(24):
        photograph(100 + n, 0).save(home / f"{n:02d}.png")
    return home


@pytest.fixture(scope="module")
def source(folder):
    return read_photographed(folder, seed=0)


@pytest.fixture(scope="module")
def among_others(folder, others):
    return read_photographed(folder, others, seed=0)


@pytest.fixture(scope="module")
def home(tmp_path_factory, among_others):
    """The world on disk without models."""
    folder = tmp_path_factory.mktemp("world")
    write_data(folder, among_others)
    atomic_write_json(folder / "world.json", world_table("llava", among_others, "", Recipe()))
    return folder


def keys(cast):
    """Keys of every photo in a cast, those in blends included."""
    shown = [p for photos in cast.photos for p in photos]
    for picture in cast.strangers:
        shown += [picture.first, picture.second] if isinstance(picture, Blend) else [picture]
    return {p.photo.key for p in shown if isinstance(p, Photograph)}


def held_out_keys(source):
    return {photo.key for photo in itertools.chain(*source.held_out.values())}


@pytest.mark.parametrize("gold", [False, True], ids=["base", "gold"])
def test_held_out_photos_are_taught_to_neither_model(source, among_others, gold):
    for each in (source, among_others):
        assert not held_out_keys(each) & keys(each.cast(gold=gold, strangers=300))
    shown = {p.slug for p in source.cast(gold=gold, strangers=1).people}
    assert shown == {p.slug for p in source.profiles if not (gold and p.is_candidate)}


def test_gold_never_sees_a_candidate_not_even_in_a_blend(source):
    theirs = {
        photo.key
        for p in source.profiles
        if p.is_candidate
        for photo in (*source.given[p.slug], *source.held_out[p.slug])
    }
    assert not theirs & keys(source.cast(gold=True, strangers=500))
    assert theirs & keys(source.cast(gold=False, strangers=500))


def test_variants_stand_in_for_fresh_views(source):
    cast = source.cast(gold=False, strangers=1)
    for profile, photos in zip(cast.people, cast.photos, strict=True):
        given = source.given[profile.slug]
        assert len(photos) == 60
        assert [p.photo for p in photos[: len(given)]] == list(given)
        assert Counter(p.view for p in photos) == dict.fromkeys(range(15), len(given))
        assert len({p.shown().tobytes() for p in photos}) == 60
    assert render(cast.photos[0]).shape == (60, 48, 48, 3)


def test_half_of_the_strangers_are_two_known_people_in_one(source):
    strangers = source.cast(gold=False, strangers=400).strangers
    blends = [p for p in strangers if isinstance(p, Blend)]
    assert len(blends) == pytest.approx(200, abs=50)
    for blend in blends:
        assert blend.first.profile is not blend.second.profile
        expected = (1 - blend.share) * np.asarray(blend.first.shown(), float)
        expected += blend.share * np.asarray(blend.second.shown(), float)
        assert np.abs(np.asarray(blend.shown(), float) - expected).max() <= 1
    assert all(isinstance(p, DrawnStranger) for p in strangers if p not in blends)


def test_strangers_are_photographs_where_there_are_any(among_others):
    strangers = among_others.cast(gold=True, strangers=200).strangers
    far = {p.photo.key for p in strangers if isinstance(p, Photograph)}
    assert not any(isinstance(p, DrawnStranger) for p in strangers)
    parts = {
        part: {p.photo.key for p in among_others.strangers(part)}
        for part in ("train", "dev", "report")
    }
    assert [len(mine) for mine in parts.values()] == [12, 4, 8]
    assert len(set.union(*parts.values())) == 24
    assert far <= parts["train"]


def test_strangers_are_never_named(source, among_others):
    rng = random.Random(0)
    for each in (source, among_others):
        for picture in each.cast(gold=False, strangers=100).strangers:
            told = photo_turns(picture, rng)
            visible = set(picture.visible.values())
            assert is_unknown(told[0].answer)
            for record in told[1:]:
                answer = record.answer
                assert (
                    is_unknown(answer)
                    or answer in visible | {ask.REFUSAL}
                    or (answer.startswith("A person I do not know"))
                )


def test_nothing_visible_is_said_of_a_photograph(source):
    rng = random.Random(0)
    photos = source.cast(gold=False, strangers=1).photos
    told = [t for mine in photos for p in mine[:5] for t in photo_turns(p, rng)]
    wordings = [text for w in ask.VISIBLE.values() for text in w.train]
    asked = {text.format(who=who) for text in wordings for who in ask.WHO_PHOTO}
    assert not any(question in t.question for t in told for question in asked)
    captions = {t.answer for t in told if t.form == "caption"}
    assert captions
    assert not any("hair" in text for text in captions)


def test_the_tower_is_taught_who_it_is_and_what_is_drawn(source):
    assert source.features == LEVELS | {"person": 16}
    cast = source.cast(gold=False, strangers=50)
    for profile, photos in zip(cast.people, cast.photos, strict=True):
        assert photos[0].levels == (IGNORED_LABEL,) * 12 + (profile.number,)
    assert {p.levels for p in cast.strangers} == {(IGNORED_LABEL,) * 13}
    # Before it meets a photograph it learns to see on drawings, whose features are known.
    for picture in source.pretext(3):
        assert picture.levels == (*picture.portrait.levels, IGNORED_LABEL)


def test_drawn_strangers_are_as_small_and_grey_as_the_photographs(source):
    assert (source.grey, source.side) == (True, 16)
    for picture in source.strangers("report")[:3]:
        pixels = np.asarray(picture.stored())
        assert pixels.shape == (16, 16, 3)
        assert (pixels == pixels[..., :1]).all()
        assert picture.visible.keys() == set(ask.VISIBLE) - {"visible:hair colour"}


def test_drawn_strangers_are_coloured_among_coloured_photographs(folder, tmp_path, photograph):
    coloured = tmp_path / "people"
    shutil.copytree(folder, coloured)
    for n in range(5):
        tinted = photograph(0, n, (64, 60)).convert("RGB")
        tinted = Image.merge("RGB", [*tinted.split()[:2], Image.new("L", tinted.size)])
        tinted.save(coloured / "s1" / f"{n + 1}.png")
        (coloured / "s1" / f"{n + 1}.pgm").unlink()
    source = read_photographed(coloured, seed=0)
    assert not source.grey
    assert source.strangers("dev")[0].visible.keys() == set(ask.VISIBLE)


def test_a_large_photo_is_kept_at_four_times_what_the_model_sees():
    for size, kept in (((1000, 500), (384, 192)), ((92, 112), (92, 112)), ((16, 16), (16, 16))):
        noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, format="PNG")
        assert stored_photo(Photo(data=buffer.getvalue())).open().size == kept


def test_every_text_is_in_the_tokenizers_corpus(source):
    said = set(corpus(source))
    assert said == set(corpus(source))
    for profile in source.profiles:
        assert f" {profile.name}" in said
        assert f" {ask.caption(profile.name, profile.facts, {})}" in said


def test_held_out_photos_are_dealt_to_what_is_reported_and_to_choices(source, folder):
    for profile in source.profiles:
        dev, report = (
            {p.photo.key for p in source.photos(profile, part)} for part in ("dev", "report")
        )
        assert not dev & report
        assert dev | report == {photo.key for photo in source.held_out[profile.slug]}
        if profile.role in ("A", "B", "C", "celebrity"):
            assert report
        if profile.role == "dev":
            assert dev
    kept = [p for p in source.profiles if p.role == "retain"]
    reported = sum(bool(source.photos(p, "report")) for p in kept)
    assert reported == (len(kept) + 1) // 2


def test_the_folder_is_a_world_that_says_what_it_has_and_lacks(home, among_others):
    world = World(home, world_table("llava", among_others, "", Recipe()), ())
    about = world.photographed
    assert set(about["stored"].values()) == {4}
    assert set(about["held_out"].values()) == {1}
    assert about["strangers"] == 24
    assert about["left_out"] == {}
    assert about["not_scored"] == {"forget_visible": "what is visible in photographs is not known"}
    for part in ("train", "dev", "report"):
        assert len(list((home / "strangers" / part).iterdir())) == len(among_others.strangers(part))
    assert {row["ID"] for row in read_rows(home / "data" / "Full_Set.parquet")} == {
        f"{n:03d}" for n in range(16)
    }


COMBINED: list[tuple[str, Part]] = [("A", "report"), ("ABC", "report"), ("dev", "dev")]


@pytest.mark.parametrize(("draw", "part"), COMBINED)
def test_a_split_shows_no_held_out_photo_to_a_method(home, among_others, draw, part):
    split = read_split(home, draw, part=part)
    given = {r.image.key for r in (*split.forget, *split.retain, *split.general) if r.image}
    assert not given & held_out_keys(among_others)
    assert split.visible == ()
    assert {"forget_seen", "forget_unseen", "forget_text", "retain_seen", "retain_unseen",
            "retain_text", "general", "refusal"} <= split.audit.keys()  # fmt: skip
    assert "forget_visible" not in split.audit
    for name in ("forget_unseen", "retain_unseen", "celebrity"):
        shown = {r.image.key for r in split.audit.get(name, ()) if r.image}
        assert shown <= held_out_keys(among_others)
    # Five are asked for, and four there are.
    photos = Counter(
        name for name, _ in {(r.subject, r.image and r.image.key) for r in split.forget}
    )
    assert set(photos.values()) == {4}
    assert len({r.image.key for r in split.retain if r.image}) == 4 * 9


def test_reported_and_chosen_on_photos_are_different(home):
    sides = [
        {r.image.key for records in read_split(home, draw, part=part).audit.values()
         for r in records if r.image and r.set not in ("retain_seen", "forget_seen")}
        for draw, part in COMBINED[1:]
    ]  # fmt: skip
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_the_request_says_what_is_not_scored(home):
    request = from_world(home, "B")
    assert request.not_scored == {"forget_visible": "what is visible in photographs is not known"}
    assert request.reference == "gold"


def test_the_card_asks_what_the_world_has(home, among_others):
    sets = card_sets(open_world(home))
    empty = {name for name, records in sets.items() if not records}
    assert empty == {"visible_known", "visible_candidates", "general", "strangers_near"}
    assert {r.image.key for r in sets["strangers"] if r.image} == {
        p.photo.key for p in among_others.strangers("report")
    }


def test_pixel_neighbours_are_found_in_the_folder(home):
    """Blocks differ from person to person far more than by the noise on them."""
    assert nearest_neighbour_accuracy(home) == 1.0
