"""What settings are worth on people and questions that serve choices alone."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.data.images import Photo
from unsee.data.records import Record, Split, in_sets
from unsee.erasers.protocol import Fits, erased
from unsee.errors import DataError
from unsee.method import Progress, Surgery
from unsee.metrics.answers import accuracy
from unsee.metrics.sets import score_sets
from unsee.metrics.summary import Reference, keep_sets, summarise
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.replies import Replies
from unsee.requests import Request
from unsee.settings import Settings
from unsee.train import may_change, train

# Asked first; a model that has lost more than half of what it kept is asked nothing else.
FIRST_LOOK = 64
COLLAPSED = 0.5
# Intervals serve the memorisation gate alone here.
RESAMPLES = 200


def with_bystanders(split: Split) -> Split:
    """A quarter of the people to keep is taken from the method: known people it is never given.

    All development people of a world are forgotten at once, so none of them can stand for the
    others. The two development celebrities join them: between two people chance is one half.
    """
    apart = set(sorted({r.subject for r in split.retain})[::4])
    audit = dict(split.audit)
    never_given = [r for r in audit["retain_unseen"] if r.subject in apart]
    never_given += audit.pop("celebrity")
    for name in ("retain_seen", "retain_unseen"):
        audit[name] = tuple(r for r in audit[name] if r.subject not in apart)
    audit["bystander"] = tuple(replace(r, set="bystander") for r in never_given)
    retain = tuple(r for r in split.retain if r.subject not in apart)
    return replace(split, retain=retain, audit=audit)


def rehearsal(request: Request, *, seed: int = 0) -> Request:
    """A request within a request: settings are chosen by it, and the audit's photos stay unseen.

    A quarter of the photos of each person whom the method may see, at least one of two, is asked
    only; of people to keep, of strangers and of general photos likewise. Questions without a photo
    are asked as they are given.

    Args:
        request: The one that is reported on; nothing that is only audited is used.
        seed: Of which photos.

    Raises:
        DataError: If nobody to forget has two photos.
    """
    split = request.split
    forget, unseen = _parted(split.forget, seed)
    retain, retain_unseen = _parted(split.retain, seed)
    general, general_unseen = _parted(split.general, seed, by_photo=True)
    apart = {record.image for record in unseen}
    visible = tuple(r for r in split.visible if r.image not in apart)
    if not unseen:
        raise DataError(
            "expected two or more photos of somebody to forget, got one each: nothing is left to "
            "choose settings by; give more photos, or the settings themselves"
        )
    asked = {
        "forget_seen": forget,
        "forget_unseen": unseen,
        "forget_visible": split.visible,
        "retain_seen": retain,
        "retain_unseen": retain_unseen,
        "general": general_unseen,
    }
    return replace(
        request,
        split=Split(
            forget=forget,
            visible=visible,
            retain=retain,
            general=general,
            audit=in_sets(asked),
            subjects=split.subjects,
        ),
    )


def _parted(
    records: Sequence[Record], seed: int, *, by_photo: bool = False
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """What is given, and what is asked only: a quarter of each person's photos, or of all."""
    photos: dict[str, dict[Photo, None]] = {}
    for record in records:
        if record.image is not None:
            photos.setdefault("" if by_photo else record.subject, {})[record.image] = None
    apart: set[Photo] = set()
    for subject, shown in sorted(photos.items()):
        drawn = random.Random(f"{seed} {subject}").sample(list(shown), len(shown))
        apart.update(drawn[: max(1, len(drawn) // 4) if len(drawn) > 1 else 0])
    given = tuple(record for record in records if record.image not in apart)
    return given, tuple(record for record in records if record.image in apart)


def spread(records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """At most `count` of the records, spread evenly over them."""
    step = max(1, len(records) / count)
    return tuple(records[int(i * step)] for i in range(min(len(records), count)))


@dataclass(frozen=True)
class Tried:
    """What one choice of settings came to.

    Attributes:
        summary: As in report.json; empty where `collapsed`.
        collapsed: What was lost, where so much was that nothing else was asked; else "".
        seconds: Of training, surgery or fitting.
    """

    summary: Mapping[str, Any]
    collapsed: str
    seconds: float


class Yardstick:
    """Open questions of a request, and what base and reference answer to them.

    The summary rests on open questions alone, so nothing else is asked.

    Args:
        vlm: The base.
        request: What is to be forgotten and kept, and what is asked.
        gold: A model that never knew; without it the request's stranger floor is the reference.
        path: File of answers, so that base and reference are asked once; None for memory alone.
        questions: Most questions a set.
        progress: Told stage, steps done and steps in all.

    Raises:
        DataError: If no set has open questions, or there is nothing to compare with.
    """

    def __init__(
        self,
        vlm: VLM,
        request: Request,
        *,
        gold: VLM | None,
        path: Path | None,
        questions: int,
        progress: Progress | None = None,
    ) -> None:
        if gold is None and not request.floor:
            raise DataError(
                "expected a model that never knew, or strangers, to compare trials with, got "
                "neither; give --gold or --strangers"
            )
        self.request = request
        self._vlm = vlm
        self._progress = progress
        self.sets = {
            name: spread(asked, questions)
            for name, records in request.split.audit.items()
            if (asked := [record for record in records if record.form == "open"])
        }
        if not self.sets:
            raise DataError("expected open questions to judge trials by, got none")
        self._reference: Reference = "gold" if gold is not None else "strangers"
        self._plain = Replies(vlm, name="base", path=path, progress=progress)
        self._base = self._scores(self._plain)
        if gold is not None:
            self._floor = self._scores(Replies(gold, name="gold", path=path, progress=progress))
        else:
            floor = {name: spread(asked, questions) for name, asked in request.floor.items()}
            answers = {name: self._plain.answers(asked) for name, asked in floor.items()}
            self._floor = score_sets(floor, answers)

    def tried(self, method: Settings, *, seed: int) -> Tried:
        """Forget with these settings, ask, and put the model back as it was, bit for bit."""
        vlm, split = self._vlm, self.request.split
        started = time.monotonic()
        if isinstance(method, Fits):
            eraser = method.fit(vlm, split, seed=seed, scope=self.request.scope)
            seconds = time.monotonic() - started
            with erased(vlm, [eraser]):
                return self._asked(seconds)
        with restored(vlm.model, may_change(vlm, method)):
            if isinstance(method, Surgery):
                method.edit(vlm, split, seed=seed, progress=self._progress)
            else:
                train(vlm, split, method, seed=seed, progress=self._progress)
            return self._asked(time.monotonic() - started)

    def _asked(self, seconds: float) -> Tried:
        replies = Replies(self._vlm, name="erased", path=None, progress=self._progress)
        if lost := self._lost(replies):
            return Tried({}, lost, seconds)
        scores = self._scores(replies)
        summary = summarise(
            self._base, scores, self._floor, reference=self._reference, scope=self.request.scope
        )
        return Tried(summary, "", seconds)

    def _lost(self, replies: Replies) -> str:
        """What a first look at what is to be kept shows, where most of it is gone."""
        kept = [r for name in keep_sets(self.request.scope) for r in self.sets.get(name, ())]
        chosen = spread(kept, FIRST_LOOK)
        right = sum(map(accuracy, chosen, replies.answers(chosen)))
        before = sum(map(accuracy, chosen, self._plain.answers(chosen)))
        if right >= COLLAPSED * before:
            return ""
        return f"{right:.0f} of {before:.0f} right answers left on a first look at what is kept"

    def _scores(self, replies: Replies) -> dict[str, dict[str, Any]]:
        answers = {name: replies.answers(records) for name, records in self.sets.items()}
        return score_sets(self.sets, answers, resamples=RESAMPLES)
