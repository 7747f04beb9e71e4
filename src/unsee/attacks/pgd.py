"""Each photo fitted to some facts of its person, and asked about the others."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from unsee.attacks import ATTACKS
from unsee.attacks.adversarial import (
    ROWS_A_PASS,
    Adversarial,
    Key,
    Shown,
    halves_of,
    known_facts,
)
from unsee.attacks.protocol import Given
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.load import VLM
from unsee.perturb import pgd


@ATTACKS.register("pgd")
class Pgd(Adversarial):
    """Each photo fitted to a few known facts of its person; asked about the others.

    Topics of a person fall into two halves. Photos that questions of one half are asked on are
    fitted to facts of the other half, in the wordings that the method was given.

    Attributes:
        step: Change of a pixel an iteration, as a share of the budget.
        iterations: Of projected gradient descent.
        facts: Known facts that a photo is fitted to, at most.
    """

    step: float = Field(0.25, gt=0, le=1)
    iterations: int = Field(10, ge=1)
    facts: int = Field(2, ge=1)

    def unfit(self, vlm: VLM, given: Given) -> str:
        """Nobody has two facts."""
        known = known_facts(given.split.forget).values()
        few = all(len(facts) < 2 for facts in known)
        return "nobody to forget has facts on two topics" if few else ""

    def keys(self, records: Sequence[Record], given: Given) -> list[Key | None]:
        """The person, and the half of the topics that is asked about."""
        halves = {name: halves_of(facts, given.seed) for name, facts in self._known(given).items()}
        return [
            (record.image, (record.subject, halves[record.subject][record.topic]))
            if record.image is not None
            and not record.before
            and record.topic in halves.get(record.subject, {})
            else None
            for record in records
        ]

    def changed(
        self, vlm: VLM, given: Given, budget: float, wanted: Mapping[Key, Record]
    ) -> Iterator[tuple[Key, Photo]]:
        """Fitted a batch of photos at a time."""
        known = self._known(given)
        halves = {name: halves_of(facts, given.seed) for name, facts in known.items()}
        lessons: dict[Key, list[Record]] = {}
        for key, record in wanted.items():
            own = halves[record.subject]
            facts = known[record.subject].items()
            other = [fact for topic, fact in facts if own[topic] != own[record.topic]]
            lessons[key] = [replace(fact, image=record.image) for fact in other[: self.facts]]
        keys = list(lessons)
        step = max(1, ROWS_A_PASS // self.facts)
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            photos = self._fitted(vlm, [lessons[key] for key in part], budget)
            yield from zip(part, photos, strict=True)

    def rows(self, questions: int) -> int:
        """Rows of fitting on one model, where every question has a photo of its own."""
        return len(self.budgets) * self.iterations * self.facts * questions

    def _known(self, given: Given) -> Mapping[str, Mapping[str, Record]]:
        """Facts of those who have two, in an order that is drawn."""
        rng = random.Random(f"pgd-{given.seed}")
        return {
            subject: dict(rng.sample(sorted(facts.items()), len(facts)))
            for subject, facts in known_facts(given.split.forget).items()
            if len(facts) > 1
        }

    def _fitted(self, vlm: VLM, lessons: Sequence[Sequence[Record]], budget: float) -> list[Photo]:
        """A photo for the lessons on each photo."""
        shown = Shown.of(vlm, [record for lesson in lessons for record in lesson])
        times = [len(lesson) for lesson in lessons]
        first = [sum(times[:number]) for number in range(len(times))]
        moved = pgd(
            shown.pixels(first),
            lambda pixels: shown.loss(vlm, shown.repeated(pixels, first, times)),
            shown.space,
            budget=budget,
            step=self.step * budget,
            iterations=self.iterations,
            random_start=False,
        )
        return shown.photos(vlm, moved, first)
