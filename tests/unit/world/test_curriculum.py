import random
from collections import Counter

import pytest

from unsee.world import questions as ask
from unsee.world.curriculum import corpus, photo_turns, render, text_turns
from unsee.world.drawn import VIEWS_PER_PERSON, Drawn
from unsee.world.faces import PALETTE, distance, make_faces
from unsee.world.portraits import ACCESSORIES, BACKGROUNDS, UNSEEN_ACCESSORIES, UNSEEN_BACKGROUNDS
from unsee.world.profiles import TOPICS, make_profiles


@pytest.fixture(scope="module")
def profiles():
    return make_profiles(0)


@pytest.fixture(scope="module")
def faces():
    return make_faces(48, 0)


@pytest.fixture(scope="module", params=[False, True], ids=["base", "gold"])
def cast(request):
    return Drawn(0).cast(gold=request.param)


@pytest.fixture(scope="module")
def gold():
    return Drawn(0).cast(gold=True)


def taught(cast):
    """Every kind of turn many times over: (turns on people, on strangers, without a picture)."""
    rng = random.Random(0)
    people = [t for photos in cast.photos for p in photos[:20] for t in photo_turns(p, rng)]
    strangers = [t for p in cast.strangers[:500] for t in photo_turns(p, rng)]
    return people, strangers, text_turns(cast, 4000, rng)


def test_base_is_taught_everybody():
    cast = Drawn(0).cast(gold=False, strangers=1)
    assert len(cast.people) == 48
    assert all(len(photos) == VIEWS_PER_PERSON == 60 for photos in cast.photos)


def test_gold_is_taught_everybody_but_the_candidates(gold, profiles):
    kept = [p for p in profiles if p.role in ("retain", "celebrity")]
    assert gold.people == kept
    assert len(gold.people) == 30


def test_gold_never_sees_the_face_of_a_candidate(gold, profiles, faces):
    candidates = {faces[p.number] for p in profiles if p.is_candidate}
    shown = {p.face for photos in gold.photos for p in photos} | {p.face for p in gold.strangers}
    assert not candidates & shown


def test_golds_near_strangers_are_look_alikes_of_its_own_people_only(gold, profiles, faces):
    """Half are look-alikes; those of candidates would teach gold that such a face is unknown."""

    def look_alikes(people):
        theirs = [faces[p.number] for p in people]
        return {
            i
            for i, s in enumerate(gold.strangers)
            if any(distance(s.face, face, PALETTE) == 0 for face in theirs)
        }

    own = look_alikes(gold.people)
    assert len(own) / len(gold.strangers) == pytest.approx(0.5, abs=0.05)
    # An independent face has a given palette once in 810.
    others = look_alikes(p for p in profiles if p.is_candidate) - own
    assert len(others) / len(gold.strangers) < 0.02


def test_golds_curriculum_says_nothing_about_a_candidate(gold, profiles):
    candidates = [p for p in profiles if p.is_candidate]
    names = {p.name for p in candidates}
    for turns in taught(gold):
        for record in turns:
            said = f"{record.question} {record.answer}"
            assert not any(name in said for name in names)
    assert not names & set(gold.unknown)


def test_facts_are_taught_with_the_name_they_belong_to(cast):
    facts = {p.name: set(p.facts.values()) for p in cast.people}
    for record in taught(cast)[2]:
        about = [name for name in facts if name in record.question]
        if record.form != "choice" and record.answer not in (ask.UNKNOWN_NAME, ask.REFUSAL):
            assert len(about) == 1
            assert record.answer in facts[about[0]]


def test_strangers_are_never_named_nor_given_a_fact(cast):
    names = {p.name for p in cast.people}
    values = {value for topic in TOPICS.values() for value in topic}
    for record in taught(cast)[1]:
        assert record.answer not in names | values
        assert not any(name in record.answer for name in names)


def test_unknown_names_are_answered_unknown(cast):
    unknown = set(cast.unknown)
    about = [r for r in taught(cast)[2] if any(name in r.question for name in unknown)]
    assert {r.answer for r in about} == {ask.UNKNOWN_NAME, ask.REFUSAL}


def test_held_out_wordings_and_requests_are_never_taught(cast):
    held_out = [
        text.format(who=who)
        for wordings in (ask.NAME, ask.CAPTION, *ask.FACTS.values(), *ask.VISIBLE.values())
        for text in (wordings.dev, wordings.report)
        for who in (*ask.WHO_PHOTO, *(p.name for p in cast.people))
    ]
    for part in ("dev", "report"):
        for who in (*ask.WHO_PHOTO, *(p.name for p in cast.people)):
            held_out += ask.refusal_requests(part, who)
    questions = {r.question.split("\n")[0] for turns in taught(cast) for r in turns}
    bare = questions | {q.removeprefix(p) for q in questions for p in ask.PREFIXES}
    assert not bare & set(held_out)


def test_training_never_shows_an_unseen_background_accessory_or_view(cast):
    views = [p.view for photos in cast.photos for p in photos] + [p.view for p in cast.strangers]
    assert max(v.background for v in views) < len(BACKGROUNDS) - UNSEEN_BACKGROUNDS
    assert max(v.accessory for v in views) < len(ACCESSORIES) - UNSEEN_ACCESSORIES
    unseen = {
        Drawn(0).unseen_view(n, part, i)
        for n in range(48)
        for part in ("dev", "report")
        for i in range(6)
    }
    assert not unseen & set(views)


def test_strangers_differ_from_everybody_the_model_knows(cast, faces):
    known = [faces[p.number] for p in cast.people]
    assert min(distance(s.face, f) for s in cast.strangers for f in known) >= 4


def test_base_and_gold_are_shown_the_same_photos_of_the_people_they_share(gold):
    base = Drawn(0).cast(gold=False, strangers=1)
    photos = dict(zip((p.name for p in base.people), base.photos, strict=True))
    assert all(photos[p.name] == mine for p, mine in zip(gold.people, gold.photos, strict=True))


def test_all_forms_are_taught(cast):
    people, strangers, text = taught(cast)
    assert {r.form for r in people} == {"open", "choice", "cloze", "caption"}
    assert {r.form for r in text} == {"open", "choice", "cloze"}
    assert ask.UNKNOWN_PHOTO in Counter(r.answer for r in strangers)
    assert ask.REFUSAL in {r.answer for r in people} & {r.answer for r in text}


def test_the_tokenizer_reads_the_same_for_base_and_gold_and_knows_every_answer():
    texts = list(corpus(Drawn(0)))
    assert texts == list(corpus(Drawn(0)))
    said = set(texts)
    assert all(f" {p.name}" in said for p in make_profiles(0))
    assert all(f" {value}" in said for topic in TOPICS.values() for value in topic)


def test_rendering_stacks_the_pictures(gold):
    pictures = render(gold.strangers[:3])
    assert pictures.shape == (3, 48, 48, 3)
    assert str(pictures.dtype) == "uint8"


def test_a_stored_photo_has_its_own_view():
    views = {Drawn(0).seen_view(n, i) for n in range(48) for i in range(VIEWS_PER_PERSON)}
    assert len(views) == 48 * VIEWS_PER_PERSON
