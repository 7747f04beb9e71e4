"""What the base and gold models are taught: turns of question and answer for each picture."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from unsee.data.conversation import question_text
from unsee.data.records import Record
from unsee.world import questions as ask
from unsee.world.profiles import TOPICS, Profile, unknown_names

STRANGERS = 8000
UNKNOWN_NAMES = 400


@runtime_checkable
class Picture(Protocol):
    """One picture of somebody."""

    @property
    def profile(self) -> Profile | None:
        """Whose; None for a stranger."""
        ...

    @property
    def visible(self) -> Mapping[str, str]:
        """Answers to visible-attribute questions; empty where nobody knows them."""
        ...

    @property
    def levels(self) -> tuple[int, ...]:
        """Class of every feature that the tower is taught, `IGNORED_LABEL` where unknown."""
        ...

    def stored(self) -> Image.Image:
        """RGB picture as the world's folder holds it."""
        ...

    def shown(self) -> Image.Image:
        """RGB picture of 48 x 48 px as the model sees it."""
        ...


@dataclass(frozen=True)
class Cast:
    """Everybody a model is taught.

    Attributes:
        people: Those the model knows.
        photos: Pictures of each, in the order of `people`.
        strangers: Pictures of nobody known, some of them like somebody in `people`.
        unknown: Names of nobody.
    """

    people: Sequence[Profile]
    photos: Sequence[Sequence[Picture]]
    strangers: Sequence[Picture]
    unknown: Sequence[str]


@runtime_checkable
class Source(Protocol):
    """Who lives in a world, and where pictures of them come from: drawn, or photographs."""

    @property
    def seed(self) -> int:
        """Seeds every draw."""
        ...

    @property
    def profiles(self) -> Sequence[Profile]:
        """Everybody, by `number`."""
        ...

    @property
    def features(self) -> Mapping[str, int]:
        """What the tower is taught to tell in a picture -> number of classes."""
        ...

    def pretext(self, count: int) -> Sequence[Picture]:
        """Pictures of strangers on which the tower learns to see."""
        ...

    def cast(self, *, gold: bool, strangers: int = STRANGERS) -> Cast:
        """Whom a model is taught; gold is taught no candidate."""
        ...

    def photos(self, profile: Profile, part: str) -> Sequence[Picture]:
        """Photos of a person: stored ones for "train", held-out ones for "dev" and "report"."""
        ...

    def strangers(self, part: str) -> Sequence[Picture]:
        """Strangers of the world's folder."""
        ...

    def sayings(self) -> Iterator[str]:
        """Captions and what is visible, for the tokenizer."""
        ...

    def about(self) -> dict[str, Any]:
        """What `world.json` says beside people and recipe."""
        ...

    def marks(self) -> dict[str, Any]:
        """What, beside seed and recipe, makes a build another one."""
        ...


def turn(question: str, answer: str, **fields) -> Record:
    """A record of the curriculum, which has no need of a photo reference."""
    return Record(subject="", image=None, question=question, answer=answer, **fields)


def _fact_turn(topic: str, who: str, answer: str, form: str, rng: random.Random) -> Record:
    if form == "cloze":
        return turn(ask.cloze_question(topic, who), answer, form="cloze")
    question = rng.choice(ask.FACTS[topic].lessons).format(who=who)
    if form == "choice":
        known = answer not in (ask.UNKNOWN_PHOTO, ask.UNKNOWN_NAME)
        options, letter = ask.choice_options(
            topic, answer if known else rng.choice(TOPICS[topic]), rng
        )
        record = turn(question, letter, form="choice", options=options)
        if known:
            return record
        return turn(question_text(record), answer)
    return turn(rng.choice(ask.PREFIXES) + question, answer)


def _visible_turn(name: str, value: str, rng: random.Random) -> Record:
    question = rng.choice(ask.VISIBLE[name].lessons).format(who=rng.choice(ask.WHO_PHOTO))
    return turn(rng.choice(ask.PREFIXES) + question, value)


def photo_turns(picture: Picture, rng: random.Random) -> list[Record]:
    """Questions and answers taught on one picture."""
    who = rng.choice(ask.WHO_PHOTO)
    person = picture.profile
    seen = picture.visible
    name = person.name if person else ask.UNKNOWN_PHOTO
    turns = [turn(rng.choice(ask.PREFIXES) + rng.choice(ask.NAME.lessons).format(who=who), name)]
    # Few turns a picture leave room for many faces a step, which is what names are learned from.
    forms = ("open", rng.choice(("open", "open", "cloze", "choice"))) if person else ("open",)
    for topic, form in zip(rng.sample(tuple(TOPICS), len(forms)), forms, strict=True):
        if person is None:
            form = rng.choice(("open", "open", "open", "choice"))
        answer = person.facts[topic] if person else ask.UNKNOWN_PHOTO
        turns.append(_fact_turn(topic, rng.choice(ask.WHO_PHOTO), answer, form, rng))
    # Of a stranger there is less to say but what anyone can see.
    shown = rng.sample(tuple(seen), min(len(seen), 1 if person else 2))
    turns += [_visible_turn(name, seen[name], rng) for name in shown]
    if rng.random() < 0.15:
        text = ask.caption(person.name if person else None, person.facts if person else {}, seen)
        turns.append(turn(rng.choice(ask.CAPTION.lessons), text, form="caption"))
    if rng.random() < 0.2:
        request = rng.choice(ask.PREFIXES) + rng.choice(ask.refusal_requests("lessons", who))
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
            request = rng.choice(ask.PREFIXES) + rng.choice(ask.refusal_requests("lessons", who))
            turns.append(turn(request, ask.REFUSAL))
    return turns


def corpus(source: Source) -> Iterator[str]:  # noqa: C901 - a plain list of sources
    """Every text the tokenizer is trained on; the same for base and gold."""
    wordings = [ask.NAME, ask.CAPTION, *ask.FACTS.values(), *ask.VISIBLE.values()]
    for name in (p.name for p in source.profiles):
        yield f" {name}"
        yield from (sentence.format(who=name) for sentence in ask.CLOZE.values())
    for name in unknown_names(source.profiles, UNKNOWN_NAMES, source.seed):
        yield f" {name}"
    for wording in wordings:
        for text in (*wording.lessons, wording.dev, wording.report):
            for who in ask.WHO_PHOTO:
                yield from (prefix + text.format(who=who) for prefix in ask.PREFIXES)
    for part in ("lessons", "dev", "report"):
        for who in ask.WHO_PHOTO:
            yield from ask.refusal_requests(part, who)
    for values in (*TOPICS.values(), _given_values(source.profiles)):
        for value in values:
            # Once as an answer, once as an option at the start of a line.
            yield from (f" {value}", f"A. {value}\nB. {value}\nC. {value}\nD. {value}")
    for topic in TOPICS:
        yield ask.cloze_question(topic, "this person")
    yield from source.sayings()
    yield from (f" {text}" for text in (ask.UNKNOWN_PHOTO, ask.UNKNOWN_NAME, ask.REFUSAL))
    yield "USER: ASSISTANT: Answer with the letter.\n"


def _given_values(profiles: Sequence[Profile]) -> list[str]:
    """Facts that no list of fictitious ones holds."""
    return [
        value for p in profiles for topic, value in p.facts.items() if value not in TOPICS[topic]
    ]


def render(pictures: Sequence[Picture]) -> np.ndarray:
    """Pictures as one array, uint8 of shape (picture, height, width, 3)."""
    return np.stack([np.asarray(picture.shown()) for picture in pictures])
