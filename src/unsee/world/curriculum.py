"""What the base and gold models are taught: turns of question and answer for each picture."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unsee.data.collate import question_text
from unsee.data.records import Record
from unsee.world import questions as ask
from unsee.world.portraits import Face, View, draw, make_faces, make_view, stranger_face
from unsee.world.portraits import visible_attributes as visible
from unsee.world.profiles import TOPICS, Profile, make_profiles, unknown_names

VIEWS_PER_PERSON = 60
STRANGERS = 8000
NEAR_STRANGERS = 0.5
UNKNOWN_NAMES = 400


@dataclass(frozen=True)
class Portrait:
    """One picture of the curriculum: whose, and in which view."""

    face: Face
    view: View
    profile: Profile | None


@dataclass(frozen=True)
class Cast:
    """Everybody a model is taught.

    Attributes:
        people: Those the model knows.
        photos: Stored photos of each, in the order of `people`.
        strangers: Photos of nobody known; half of them look-alikes of somebody in `people`.
        unknown: Names of nobody.
    """

    people: list[Profile]
    photos: list[list[Portrait]]
    strangers: list[Portrait]
    unknown: list[str]


def seen_view(number: int, index: int, seed: int) -> View:
    """The view of stored photo `index` of person `number`."""
    return make_view(random.Random(f"seen-{seed}-{number}-{index}"))


def make_cast(seed: int, *, gold: bool, strangers: int = STRANGERS) -> Cast:
    """The people and strangers a model is taught.

    Args:
        seed: The world's seed.
        gold: Leave out every candidate, so that the model never knew them; its strangers are
            look-alikes of the people it knows.
        strangers: How many stranger photos.
    """
    profiles = make_profiles(seed)
    faces = make_faces(len(profiles), seed)
    people = [p for p in profiles if not (gold and p.is_candidate)]
    known = [faces[p.number] for p in people]
    hidden = set(faces) - set(known)
    rng = random.Random(f"strangers-{seed}-{gold}")
    return Cast(
        people=people,
        photos=[
            [
                Portrait(faces[p.number], seen_view(p.number, i, seed), p)
                for i in range(VIEWS_PER_PERSON)
            ]
            for p in people
        ],
        strangers=[
            Portrait(_stranger(known, hidden, rng), make_view(rng), None) for _ in range(strangers)
        ],
        unknown=unknown_names(profiles, UNKNOWN_NAMES, seed),
    )


def _stranger(known: list[Face], hidden: set[Face], rng: random.Random) -> Face:
    """Nobody the model knows, nor, by chance, one whom it is not to know."""
    while True:
        face = stranger_face(known, rng, near=rng.random() < NEAR_STRANGERS)
        if face not in hidden:
            return face


def turn(question: str, answer: str, **fields) -> Record:
    """A record of the curriculum, which has no need of a photo reference."""
    return Record(subject="", image=None, question=question, answer=answer, **fields)


def _fact_turn(topic: str, who: str, answer: str, form: str, rng: random.Random) -> Record:
    if form == "cloze":
        return turn(ask.cloze_question(topic, who), answer, form="cloze")
    question = rng.choice(ask.FACTS[topic].train).format(who=who)
    if form == "choice":
        known = answer in TOPICS[topic]
        options, letter = ask.choice_options(
            topic, answer if known else rng.choice(TOPICS[topic]), rng
        )
        record = turn(question, letter, form="choice", options=options)
        if known:
            return record
        return turn(question_text(record), answer)
    return turn(rng.choice(ask.PREFIXES) + question, answer)


def _visible_turn(name: str, value: str, rng: random.Random) -> Record:
    question = rng.choice(ask.VISIBLE[name].train).format(who=rng.choice(ask.WHO_PHOTO))
    return turn(rng.choice(ask.PREFIXES) + question, value)


def photo_turns(portrait: Portrait, rng: random.Random) -> list[Record]:
    """Questions and answers taught on one picture."""
    who = rng.choice(ask.WHO_PHOTO)
    person = portrait.profile
    seen = visible(portrait.face)
    name = person.name if person else ask.UNKNOWN_PHOTO
    turns = [turn(rng.choice(ask.PREFIXES) + rng.choice(ask.NAME.train).format(who=who), name)]
    # Few turns a picture leave room for many faces a step, which is what names are learned from.
    forms = ("open", rng.choice(("open", "open", "cloze", "choice"))) if person else ("open",)
    for topic, form in zip(rng.sample(tuple(TOPICS), len(forms)), forms, strict=True):
        if person is None:
            form = rng.choice(("open", "open", "open", "choice"))
        answer = person.facts[topic] if person else ask.UNKNOWN_PHOTO
        turns.append(_fact_turn(topic, rng.choice(ask.WHO_PHOTO), answer, form, rng))
    # Of a stranger there is less to say but what anyone can see.
    shown = rng.sample(tuple(seen), 1 if person else 2)
    turns += [_visible_turn(name, seen[name], rng) for name in shown]
    if rng.random() < 0.15:
        text = ask.caption(person.name if person else None, person.facts if person else {}, seen)
        turns.append(turn(rng.choice(ask.CAPTION.train), text, form="caption"))
    if rng.random() < 0.2:
        request = rng.choice(ask.PREFIXES) + rng.choice(ask.refusal_requests("train", who))
        turns.append(turn(request, ask.REFUSAL))
    return turns


def text_turns(cast: Cast, count: int, rng: random.Random) -> list[Record]:
    """Questions and answers without a picture: facts by name, unknown names, refusals."""
    turns = []
    for _ in range(count):
        what = rng.random()
        topic = rng.choice(tuple(TOPICS))
        form = rng.choices(("open", "cloze", "choice"), (6, 2, 2))[0]
        if what < 0.75:
            person = rng.choice(cast.people)
            turns.append(_fact_turn(topic, person.name, person.facts[topic], form, rng))
        elif what < 0.92:
            name = rng.choice(cast.unknown)
            turns.append(_fact_turn(topic, name, ask.UNKNOWN_NAME, form, rng))
        else:
            who = rng.choice((*(p.name for p in cast.people), *cast.unknown))
            request = rng.choice(ask.PREFIXES) + rng.choice(ask.refusal_requests("train", who))
            turns.append(turn(request, ask.REFUSAL))
    return turns


def corpus(seed: int) -> Iterator[str]:  # noqa: C901 - a plain list of sources
    """Every text the tokenizer is trained on; the same for base and gold."""
    profiles = make_profiles(seed)
    wordings = [ask.NAME, ask.CAPTION, *ask.FACTS.values(), *ask.VISIBLE.values()]
    for name in (p.name for p in profiles):
        yield f" {name}"
        yield from (sentence.format(who=name) for sentence in ask.CLOZE.values())
    for name in unknown_names(profiles, UNKNOWN_NAMES, seed):
        yield f" {name}"
    for wording in wordings:
        for part in ask.PARTS:
            for text in wording.of(part):
                for who in ask.WHO_PHOTO:
                    yield from (prefix + text.format(who=who) for prefix in ask.PREFIXES)
    for part in ask.PARTS:
        for who in ask.WHO_PHOTO:
            yield from ask.refusal_requests(part, who)
    for values in TOPICS.values():
        for value in values:
            # Once as an answer, once as an option at the start of a line.
            yield from (f" {value}", f"A. {value}\nB. {value}\nC. {value}\nD. {value}")
    for topic in TOPICS:
        yield ask.cloze_question(topic, "this person")
    for profile, face in zip(profiles, make_faces(len(profiles), seed), strict=True):
        seen = visible(face)
        yield " " + ask.caption(profile.name, profile.facts, seen)
        yield " " + ask.caption(None, {}, seen)
        yield from (f" {value}" for value in seen.values())
    yield from (f" {text}" for text in (ask.UNKNOWN_PHOTO, ask.UNKNOWN_NAME, ask.REFUSAL))
    yield "USER: ASSISTANT: Answer with the letter.\n"


def render(portraits: list[Portrait]) -> np.ndarray:
    """Pictures as one array, uint8 of shape (picture, height, width, 3)."""
    return np.stack([np.asarray(draw(p.face, p.view)) for p in portraits])
