"""Trained again: what comes back once an attacker teaches the model a little of it.

Relearning is VKD's own test of robustness (Wang et al. 2025, https://arxiv.org/abs/2512.11325);
its data, budget and average gain are not public to us, so this is **our reading**. After Hu et al.
2024, https://arxiv.org/abs/2406.13356, the attacker's data are apart from what is asked: other
photos, other wordings. The same is done to base and to gold, and

    AG(p) = [right after - before] of erased - [right after - before] of gold,    AG = mean over p

(`metrics.recovery.average_gain`); lower is more robust. What gold gains is what the lessons teach.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Asked, Given, Group, Tell, Try
from unsee.data.collate import IGNORED_LABEL
from unsee.data.records import Record, Split
from unsee.finetuning import FineTuned
from unsee.losses import cross_entropy
from unsee.method import Terms
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.models.restore import restored
from unsee.replies import records_digest
from unsee.sampling import PairBatch, Rows
from unsee.settings import Settings
from unsee.train import may_change, train

VISIBLE = "visible:"
VISUAL = ("vision", "projector")
Data = Literal["forget", "neighbours", "retain", "general"]


class Lesson(FineTuned):
    """Plain fine-tuning on answers: what the attacker's training is to the loop.

    The records to learn stand where the loop has those to forget, and those that are learned beside
    them where it has those to keep.

    Attributes:
        steps: Optimizer steps.
        lr: Peak learning rate.
        checkpoint_every: Lessons are short and start anew.
    """

    keeps: ClassVar[bool] = False

    steps: int | None = Field(50, ge=1)
    lr: float = Field(3e-4, gt=0)
    checkpoint_every: int = Field(0, ge=0, le=0)

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """Descent on the answers."""
        beside = {"beside": self._answers(vlm, batch.keep)} if batch.keep.records else {}
        return Terms(forget={"answers": self._answers(vlm, batch.forget)}, retain=beside)

    @staticmethod
    def _answers(vlm: VLM, rows: Rows) -> Tensor:
        # An eraser is to take what is learned for answers that are written.
        prompts = scoring(rows.batch.labels == IGNORED_LABEL)
        with prompts, asking([record.form for record in rows.records]):
            return cross_entropy(*answer_logits(vlm, rows.batch))


@ATTACKS.register("relearning")
class Relearning(Settings):
    """Tower and projector trained on a share of the photos and questions that were forgotten.

    Attributes:
        data: What is learned: `forget`, pairs the method was given; `neighbours`, pairs of the kept
            people who look most like them; `retain`, those of all kept people; `general`,
            those of strangers and general photos.
        shares: Of these pairs, a try each; each share holds the smaller ones.
        by_person: Take shares of the people instead, with all their pairs, and ask about the others
            alone.
        parts: What is trained, as in `unsee.finetuning.FineTuned`.
        lora_rank: Rank of adapters on the linear layers of `parts`; 0 trains the weights.
        steps: Optimizer steps a try.
        lr: Peak learning rate.
        batch: Pairs a step.
        beside: Pairs of kept people learned beside them in each step, so that less else is lost.
    """

    group: ClassVar[Group] = "relearning"
    named_only: ClassVar[bool] = False

    data: Data = "forget"
    shares: tuple[float, ...] = Field((0.2, 1.0), min_length=1)
    by_person: bool = False
    parts: tuple[str, ...] = Field(VISUAL, min_length=1)
    lora_rank: int = Field(0, ge=0)
    steps: int = Field(50, ge=1)
    lr: float = Field(3e-4, gt=0)
    batch: int = Field(16, ge=1)
    beside: int = Field(0, ge=0)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a share; the model is trained, asked, and put back."""
        shares = self._shares(given.split, given.seed)
        if isinstance(shares, str):
            return shares
        tries = []
        for name, records in shares.items():
            taught = {record.subject for record in records}
            kept = given.split.retain if self.beside else ()
            lessons = Split(records, retain=tuple(r for r in kept if r.subject not in taught))
            tries.append(
                Try(
                    name,
                    ask=_about_others(taught if self.by_person else set()),
                    change=self._trained(lessons, given.seed),
                    made_of=records_digest((*records, *lessons.retain), given.seed),
                )
            )
        return tries

    def rows(self, questions: int) -> int:
        """Rows of training passes on one model."""
        return len(self.shares) * self.steps * (self.batch + self.beside)

    def lesson(self) -> Lesson:
        """What the loop is given."""
        own = {name: getattr(self, name) for name in ("parts", "lora_rank", "steps", "lr")}
        sizes = {"forget_batch": self.batch, "retain_batch": self.beside}
        return Lesson.model_validate(own | sizes)

    def _trained(self, lessons: Split, seed: int) -> Callable[[VLM], Any]:
        lesson = self.lesson()

        @contextmanager
        def teaching(vlm: VLM) -> Iterator[None]:
            with restored(vlm.model, may_change(vlm, lesson)):
                train(vlm, lessons, lesson, seed=seed)
                yield

        return teaching

    def _shares(self, split: Split, seed: int) -> dict[str, tuple[Record, ...]] | str:
        """Pairs to learn by the name of the share, or why there are none."""
        pairs = [r for r in self._pairs(split) if r.image is not None]
        if not pairs:
            return f"there are no photos with questions to learn from ({self.data})"
        rng = random.Random(f"relearning-{seed}")
        if not self.by_person:
            drawn = rng.sample(pairs, len(pairs))
            return {
                f"{100 * share:g}%": tuple(drawn[: max(1, round(share * len(drawn)))])
                for share in self.shares
            }
        people = sorted({record.subject for record in pairs})
        drawn = rng.sample(people, len(people))
        counts = [max(1, round(share * len(people))) for share in self.shares]
        counts = [count for count in counts if count < len(people)]
        if not counts:
            return f"of {len(people)} people nobody would be left to ask about"
        return {
            f"{count} of {len(people)} people": tuple(
                record for record in pairs if record.subject in drawn[:count]
            )
            for count in dict.fromkeys(counts)
        }

    def _pairs(self, split: Split) -> Sequence[Record]:
        if self.data == "neighbours":
            return neighbours(split)
        return {"forget": split.forget, "retain": split.retain, "general": split.general}[self.data]


@ATTACKS.register("relearning_picked")
class RelearningPicked(Relearning):
    """As relearning, trained as hard as brings back most of a control that merely hides.

    An audit picks the budget (`unsee.audit.attacker`) and fills in what is None here.

    Attributes:
        grid: Budgets to pick from, steps and peak learning rate each.
        picked_at: Share of the development people's pairs that is learned to pick.
        recovered: What the budget brought back of the control, as a share of the questions.
    """

    needed: ClassVar[float] = 0.3

    grid: tuple[tuple[int, float], ...] = Field(
        ((50, 3e-4), (50, 1e-3), (100, 3e-4), (100, 1e-3)), min_length=1
    )
    picked_at: float = Field(0.2, gt=0, le=1)
    recovered: float | None = None

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a share, once a budget was picked."""
        if self.recovered is None:
            return "there is no control that merely hides, on which to pick its budget"
        return super().tries(vlm, given)

    def rows(self, questions: int) -> int:
        """Rows of training passes on one model, at the greatest budget."""
        own, steps = super().rows(questions), [steps for steps, _ in self.grid]
        return own * max(steps) // self.steps + sum(steps) * (self.batch + self.beside)

    @property
    def why_weak(self) -> str:
        """Why its budget is none that counts; "" if it is."""
        if self.recovered is None or round(self.recovered, 9) >= self.needed:
            return ""
        return (
            f"its best budget brings back {100 * self.recovered:.0f} points of a control that "
            f"merely hides on development people, and {100 * self.needed:.0f} are needed"
        )


@ATTACKS.register("relearning_curve")
class RelearningCurve(Relearning):
    """As relearning, on five shares."""

    named_only: ClassVar[bool] = True

    shares: tuple[float, ...] = Field((0.05, 0.1, 0.2, 0.5, 1.0), min_length=1)


@ATTACKS.register("relearning_people")
class RelearningPeople(Relearning):
    """As relearning, on a quarter, half and three quarters of the people; asked about the others.

    Of twelve people these are three, six and nine. Kept people are learned beside them: from a few
    people alone a model learns to name these few, and base would lose what it knows of the others.
    """

    named_only: ClassVar[bool] = True

    shares: tuple[float, ...] = Field((0.25, 0.5, 0.75), min_length=1)
    by_person: bool = True
    beside: int = Field(16, ge=0)


@ATTACKS.register("relearning_lora")
class RelearningLora(Relearning):
    """As relearning, with adapters on every linear layer of tower, projector and language model."""

    named_only: ClassVar[bool] = True

    parts: tuple[str, ...] = Field((*VISUAL, "language"), min_length=1)
    lora_rank: int = Field(16, ge=0)
    lr: float = Field(1e-3, gt=0)


@ATTACKS.register("relearning_full")
class RelearningFull(Relearning):
    """As relearning, with the whole model trained."""

    named_only: ClassVar[bool] = True

    parts: tuple[str, ...] = Field((*VISUAL, "language", "head"), min_length=1)


@ATTACKS.register("relearning_neighbours")
class RelearningNeighbours(Relearning):
    """As relearning, on kept people who look like the forgotten ones: nothing of what is asked."""

    named_only: ClassVar[bool] = True

    data: Data = "neighbours"
    shares: tuple[float, ...] = Field((1.0,), min_length=1)


@ATTACKS.register("relearning_retain")
class RelearningRetain(Relearning):
    """As relearning, on all kept people: nothing of what is asked."""

    named_only: ClassVar[bool] = True

    data: Data = "retain"
    shares: tuple[float, ...] = Field((1.0,), min_length=1)


@ATTACKS.register("relearning_general")
class RelearningGeneral(Relearning):
    """As relearning, on strangers and general photos: harmless, and of another kind."""

    named_only: ClassVar[bool] = True

    data: Data = "general"
    shares: tuple[float, ...] = Field((1.0,), min_length=1)


def neighbours(split: Split) -> list[Record]:
    """Pairs of the kept people who look most like the forgotten ones, one for each of these.

    Two people are the more alike, the more questions about what anybody sees (`visible:` topics)
    have the same most common answer; no model is asked, so that all are taught the same. Of equals
    the first by name is taken, and nobody twice while there is somebody else.

    Returns:
        Their pairs on photos, without the questions about what is visible; none where nobody was
        described.
    """
    forgotten, kept = (_looks(side) for side in ((*split.visible, *split.forget), split.retain))
    chosen: list[str] = []
    for _, looks in sorted(forgotten.items()):
        left = sorted(set(kept) - set(chosen)) or sorted(kept)
        if left:
            chosen.append(max(left, key=lambda name: _agreement(looks, kept[name])))
    return [
        record
        for record in split.retain
        if record.subject in chosen and record.image and not record.topic.startswith(VISIBLE)
    ]


def _looks(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """The most common answer to each visible topic, by subject."""
    told: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for record in records:
        if record.topic.startswith(VISIBLE) and record.form == "open":
            told[record.subject][record.topic][record.answer] += 1
    return {
        subject: {topic: answers.most_common(1)[0][0] for topic, answers in topics.items()}
        for subject, topics in told.items()
    }


def _agreement(looks: Mapping[str, str], others: Mapping[str, str]) -> int:
    return sum(others.get(topic) == answer for topic, answer in looks.items())


def _about_others(taught: set[str]) -> Callable[[Sequence[Record], Tell], Asked]:
    def ask(records: Sequence[Record], tell: Tell) -> Asked:
        return [None if record.subject in taught else record for record in records]

    return ask
