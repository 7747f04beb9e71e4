"""A request: whom to forget, whom to keep, and what the base was found to know."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unsee.data.records import Record, Split
from unsee.data.world import Part, open_world, read_split
from unsee.metrics.answers import known_answers

Scope = Literal["visual", "both"]
Reference = Literal["gold", "strangers", "none"]


@dataclass(frozen=True)
class Probe:
    """What the base knew of one topic about one subject before anything was changed.

    Attributes:
        subject: Whom it was asked about.
        topic: What was asked; the question itself where it has no topic.
        asked: Questions asked on photos of the subject that the method is given.
        right: Answers that were right.
        by_strangers: Share of the same answers on photos of strangers, 0..1; None without any.
        by_name: Share of right answers to text-only questions that name the subject, 0..1;
            None where none were asked.
        known: Whether there is something to forget.
    """

    subject: str
    topic: str
    asked: int
    right: int
    by_strangers: float | None
    by_name: float | None
    known: bool


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Attributes:
        subjects: Who is to be forgotten.
        scope: "visual" leaves answers to text-only questions alone; "both" does not.
        split: What the method is given, and what is audited.
        reference: What the erased model is compared with.
        probes: What the base knew; empty for a world, whose base is known to know everybody.
        not_measurable: "subject/topic" -> why nothing can be said about forgetting it.
        not_scored: Set that could not be filled -> why.
        floor: Forget set -> its questions with the subjects' answers on photos of strangers; how
            often they come out right there stands in for a model that never knew.
        known: Topic -> normalised answers about people the base knows, to tell wrong names.
        description: For manifest and report.
    """

    subjects: tuple[str, ...]
    scope: Scope
    split: Split
    reference: Reference
    probes: tuple[Probe, ...] = ()
    not_measurable: Mapping[str, str] = field(default_factory=dict)
    not_scored: Mapping[str, str] = field(default_factory=dict)
    floor: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    known: Mapping[str, Set[str]] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)


def from_world(
    folder: Path,
    draw: str,
    *,
    scope: Scope = "visual",
    photos: int = 5,
    part: Part = "report",
) -> Request:
    """The request to forget one draw of a world.

    Args:
        folder: A world.
        draw: "A", "B", "C", "dev" or "ABC".
        scope: Whether text-only answers are to be forgotten too.
        photos: Photos a person given to the method.
        part: Which half of the held-out items is audited; "dev" serves choices only.
    """
    world = open_world(folder)
    split = read_split(folder, draw, photos=photos, part=part)
    if scope == "both":
        split = with_text(split)
    return Request(
        subjects=split.subjects,
        scope=scope,
        split=split,
        reference="gold",
        not_scored=dict(world.photographed.get("not_scored", {})),
        known=known_answers(world.known()),
        description={
            "subjects": list(split.subjects),
            "scope": scope,
            "draw": draw,
            "part": part,
            "photos_per_person": photos,
        },
    )


def with_text(split: Split) -> Split:
    """The split whose method is also given the text-only questions about the subjects."""
    text = split.audit.get("forget_text", ())
    return Split(
        forget=split.forget + text,
        visible=split.visible,
        retain=split.retain,
        general=split.general,
        audit=split.audit,
        subjects=split.subjects,
    )
