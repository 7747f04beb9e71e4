"""A request about people: questions where there are none, and the base's own answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unsee.data.images import Photo
from unsee.data.people import Person
from unsee.data.records import Record, Split, in_sets
from unsee.errors import ConfigError, DataError
from unsee.metrics.answers import known_answers, normalise
from unsee.models.load import VLM
from unsee.replies import Progress, Replies
from unsee.requests import templates
from unsee.requests.albums import (
    FEWEST_TO_HOLD_OUT,
    Album,
    Sides,
    is_labelled,
    part,
    part_all,
    refuse_missing,
    refuse_shared,
)
from unsee.requests.probing import (
    beliefs,
    own_answers,
    probe,
    subject_and_topic,
    why_not,
)
from unsee.requests.request import Reference, Request, Scope


@dataclass(frozen=True)
class _Questions:
    """Questions about the subjects, with the answers to be forgotten."""

    given: tuple[Record, ...]
    held_out: tuple[Record, ...]
    text: tuple[Record, ...]
    not_measurable: Mapping[str, str]


def from_people(
    sides: Sides,
    *,
    vlm: VLM | None = None,
    scope: Scope = "visual",
    holdout: float = 0.25,
    force: bool = False,
    answers: Path | None = None,
    progress: Progress | None = None,
    base: Replies | None = None,
) -> Request:
    """The request to forget some people and to keep others.

    The base is asked first. What it keeps is what it says today: its own answers are the targets
    for people to keep, strangers, and what is visible on the subjects' photos. Labels of people to
    keep serve the audit only, so that keeping never teaches.

    Args:
        sides: Whom to forget, to keep and to compare with.
        vlm: The base; only without `base`.
        scope: Whether text-only answers are to be forgotten too.
        holdout: Share of each person's photos, the last ones, that no method is given, 0 to 0.5.
        force: Keep what the base was not found to know, and go on if that is everything.
        answers: JSON lines where the base's answers are kept and looked for, so that the audit of
            a run asks nothing twice; None keeps them in memory.
        progress: Told stage, questions done and questions in all.
        base: Replies to take instead of asking the model.

    Raises:
        ConfigError: If nobody is to be kept, or `holdout` is out of range.
        DataError: If someone is on two sides, or, without `force`, the base recognises nobody.
    """
    if not 0 <= holdout <= 0.5:
        raise ConfigError(f"holdout: expected a share of photos from 0 to 0.5, got {holdout}")
    refuse_missing(sides)
    refuse_shared(sides.people)
    people = sides.people
    if base is None:
        if vlm is None:
            raise ConfigError("from_people: expected a base or its replies, got neither")
        base = Replies(vlm, name="base", path=answers, progress=progress)
    albums = [part(person, holdout) for person in people["forget"]]
    faces = [photo for person in people["strangers"] for photo in person.photos[:1]]
    questions = _about_subjects(base, albums, strangers=bool(faces))
    probes = probe(base, questions.given, questions.text, faces)
    unknown = {(p.subject, p.topic): why_not(p) for p in probes if not p.known}
    not_measurable = dict(questions.not_measurable) | {
        f"{name}/{topic}": why for (name, topic), why in unknown.items()
    }
    names = tuple(person.name for person in people["forget"])
    if len(unknown) == len(probes) and not force:
        raise DataError(
            f"{sides.source}: {base.source} does not recognise {', '.join(names)}, so there is "
            "nothing to forget; check the photos and the model, or go on with --force"
        )
    if not (force or sides.whole):
        questions = _without(questions, set(unknown))

    secrets = {name: _secrets(questions, name) for name in names}
    visible, visible_audit = _visible(base, albums, secrets)
    kept, retain_audit = _kept(base, people["retain"], holdout, names)
    shown, general_audit = _general(base, people["general"], holdout, names)
    audit = {
        "forget_seen": questions.given,
        "forget_unseen": questions.held_out,
        "forget_text": questions.text,
        "forget_visible": visible_audit,
        **retain_audit,
        "general": general_audit,
        "celebrity": _celebrity(base, people["celebrity"], names),
    }
    split = Split(
        forget=questions.given + (questions.text if scope == "both" else ()),
        visible=visible,
        retain=kept,
        general=shown,
        audit=in_sets(audit),
        subjects=names,
    )
    reference: Reference = "strangers" if faces else "none"
    return Request(
        subjects=names,
        scope=scope,
        split=split,
        reference=reference,
        probes=probes,
        not_measurable=not_measurable,
        not_scored={**_reasons(split.audit), **sides.not_scored},
        floor={
            name: _on_strangers(split.audit.get(name, ()), faces)
            for name in ("forget_seen", "forget_unseen")
            if faces and name in split.audit
        },
        known=known_answers(questions.given + kept),
        description={
            "subjects": list(names),
            "source": sides.source,
            "scope": scope,
            "photos_per_person": min(len(album.given) for album in albums),
            "strangers": len(faces),
            "holdout": holdout,
            "retain_photos": len({r.image for r in kept}),
            "general_photos": len({r.image for r in shown}),
            "probes": [asdict(p) for p in probes],
            "not_measurable": not_measurable,
            **({"left_out": dict(sides.left_out)} if sides.left_out else {}),
            **({"unreadable": list(sides.unreadable)} if sides.unreadable else {}),
        },
    )


def _about_subjects(base: Replies, albums: Sequence[Album], *, strangers: bool) -> _Questions:
    """Questions from questions.jsonl, else from profile.json, else from what the base believes."""
    given: list[Record] = []
    held_out: list[Record] = []
    text: list[Record] = []
    not_measurable: dict[str, str] = {}
    for album in albums:
        person = album.person
        facts = dict(person.profile)
        if person.records:
            given += _asked(person, album.given)
            held_out += [*_asked(person, album.held_out, held_out=True), *person.asked_only]
            text += [record for record in person.records if record.image is None]
            continue
        if not is_labelled(person):
            found, missing = beliefs(base, person.name, album.given, strangers=strangers)
            facts |= found
            not_measurable |= {f"{person.name}/{topic}": why for topic, why in missing.items()}
        given += templates.on_photos(person.name, facts, album.given)
        held_out += templates.on_photos(person.name, facts, album.held_out, held_out=True)
        text += templates.by_name(person.name, facts)
    return _Questions(tuple(given), tuple(held_out), tuple(text), not_measurable)


def _asked(person: Person, photos: Sequence[Photo], *, held_out: bool = False) -> list[Record]:
    """The person's own questions on some photos; on those without, what the profile says."""
    own = [record for record in person.records if record.image in set(photos)]
    bare = set(photos) - {record.image for record in own}
    made = templates.on_photos(
        person.name, person.profile, [p for p in photos if p in bare], held_out=held_out
    )
    return [record for record in own if not _visible_topic(record)] + list(made)


def _without(questions: _Questions, unknown: set[tuple[str, str]]) -> _Questions:
    def known(records: Iterable[Record]) -> tuple[Record, ...]:
        return tuple(r for r in records if subject_and_topic(r) not in unknown)

    return replace(questions, given=known(questions.given), held_out=known(questions.held_out))


def _secrets(questions: _Questions, name: str) -> set[str]:
    """What must not be said of a subject: name and answers to be forgotten."""
    answers = {r.answer for r in questions.given if r.subject == name and r.form != "choice"}
    return {normalise(text) for text in (name, *answers)}


def _visible(
    base: Replies, albums: Sequence[Album], secrets: Mapping[str, set[str]]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Identity-free questions on the subjects' photos as the base answers them.

    An answer that tells who it is would keep what is to be forgotten; it is left out.
    """

    def answered(person: Person, photos: Sequence[Photo]) -> list[Record]:
        asked = [*templates.visible(person.name, photos)]
        asked += [r for r in person.records if _visible_topic(r) and r.image in set(photos)]
        return [
            record
            for record in own_answers(base, asked, "asking what is visible")
            if not any(_contains(record.answer, secret) for secret in secrets[record.subject])
        ]

    given = [record for album in albums for record in answered(album.person, album.given)]
    held_out = [record for album in albums for record in answered(album.person, album.held_out)]
    return tuple(given), tuple(held_out or given)


def _visible_topic(record: Record) -> bool:
    """Whether anyone can see the answer: such a question is to be kept, not forgotten."""
    return record.topic.startswith("visible")


def _kept(
    base: Replies, people: Sequence[Person], holdout: float, names: Sequence[str]
) -> tuple[tuple[Record, ...], dict[str, tuple[Record, ...]]]:
    """Targets and audit sets of people to keep."""
    given: list[Record] = []
    held_out: list[Record] = []
    text: list[Record] = []
    stage = "asking about people to keep"
    for album in part_all(people, holdout):
        person = album.person
        if person.records:
            given += _own_or_unlabelled(person, album.given)
            held_out += _own_or_unlabelled(person, album.held_out)
            text += [r for r in person.records if r.image is None]
        elif is_labelled(person):
            given += templates.on_photos(person.name, person.profile, album.given)
            held_out += templates.on_photos(
                person.name, person.profile, album.held_out, held_out=True
            )
            text += templates.by_name(person.name, person.profile)
        else:
            given += templates.unlabelled(person.name, album.given)
            held_out += templates.unlabelled(person.name, album.held_out)
    given, held_out, text = (_labelled(base, asked, stage) for asked in (given, held_out, text))
    targets = _harmless(own_answers(base, given, stage), names)
    audit = {
        "retain_seen": _harmless(given, names),
        "retain_unseen": _harmless(held_out, names),
        "retain_text": tuple(text),
    }
    return targets, audit


def _general(
    base: Replies, people: Sequence[Person], holdout: float, names: Sequence[str]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Targets and audit set of strangers, as the base answers about them."""
    albums = part_all(people, holdout)
    stage = "asking about general photos"
    given = [r for album in albums for r in _own_or_unlabelled(album.person, album.given)]
    held_out = [r for album in albums for r in _own_or_unlabelled(album.person, album.held_out)]
    return (
        _harmless(own_answers(base, given, stage), names),
        _harmless(_labelled(base, held_out, stage), names),
    )


def _celebrity(base: Replies, people: Sequence[Person], names: Sequence[str]) -> tuple[Record, ...]:
    """Questions about known people whom no method is given."""
    asked = [r for person in people for r in _own_or_unlabelled(person, person.photos)]
    return _harmless(_labelled(base, asked, "asking about known people"), names)


def _own_or_unlabelled(person: Person, photos: Sequence[Photo]) -> list[Record]:
    """The person's own questions on some photos, and those made up on photos without any."""
    own = [record for record in person.records if record.image in set(photos)]
    bare = set(photos) - {record.image for record in own}
    return own + list(templates.unlabelled(person.name, [p for p in photos if p in bare]))


def _labelled(base: Replies, records: Sequence[Record], stage: str) -> list[Record]:
    """The records; those without an answer with the base's own, if it has one."""
    found = own_answers(base, [record for record in records if not record.answer], stage)
    return [record for record in records if record.answer] + list(found)


def _harmless(records: Iterable[Record], names: Sequence[str]) -> tuple[Record, ...]:
    """Records whose answer names none of the subjects: to keep it would keep them."""
    secrets = [normalise(name) for name in names]
    return tuple(r for r in records if not any(_contains(r.answer, name) for name in secrets))


def _contains(answer: str, secret: str) -> bool:
    return f" {secret} " in f" {normalise(answer)} "


def _on_strangers(records: Sequence[Record], faces: Sequence[Photo]) -> tuple[Record, ...]:
    """Open questions of a set, each once, on each stranger's photo."""
    questions = {(r.subject, r.question): r for r in records if r.form == "open"}
    return tuple(
        replace(record, image=face, subject=f"stranger {number}")
        for number, face in enumerate(faces)
        for record in questions.values()
    )


def _reasons(audit: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """Why sets are not scored."""
    few = f"it needs {FEWEST_TO_HOLD_OUT} photos or more, so that one can be held out"
    why = {
        "forget_unseen": f"no photo of theirs was held out: {few} a person",
        "forget_text": "nothing is known to ask by name; give a profile.json or questions.jsonl",
        "forget_visible": "the model says nothing about their photos that does not name them",
        "retain_unseen": f"no photo of people to keep was held out: {few} a person",
        "retain_text": "no profile.json or questions.jsonl was given for people to keep",
        "general": f"no general photo was held out: {few}",
        "celebrity": "no known people were named whom the method is never given",
        "bystander": "only the built-in world has other draws",
        "refusal": "no requests to refuse were given",
    }
    return {name: reason for name, reason in why.items() if name not in audit}
