"""The answer looked for inside: at every language layer, where the model would begin to answer.

After the white-box attacks of UnLOK-VQA (Patil et al. 2024, https://arxiv.org/abs/2505.01456);
formulas in `unsee.metrics.readout`. There answers are single tokens and the whole vocabulary is
ranked. Ours are several tokens long, so that the attacker ranks the answers that are known to the
kind of question asked: those that people to forget and to keep have to it. Each is read off at the
token or tokens in which it parts from the others (`unsee.lens.answer_chances`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Group, Reading, Try
from unsee.data.records import Record
from unsee.lens import answer_chances
from unsee.metrics import readout
from unsee.metrics.answers import is_unknown, normalise
from unsee.models.load import VLM
from unsee.settings import Settings

# A guess that is right by chance more often says little.
MOST_BY_CHANCE = 0.4

Scores = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class _Readout(Settings):
    """Guesses from inner layers.

    Attributes:
        budgets: Guesses at each answer, B; a try each.
    """

    group: ClassVar[Group] = "readout"
    # Of chances, (record, layer, answer): how much each answer is worth guessing.
    scores: ClassVar[Scores]

    budgets: tuple[int, ...] = Field((1, 2, 4), min_length=1)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a budget; a question whose list is too short for it is left out of it."""
        lists = answer_lists((*given.split.forget, *given.split.retain))
        longest = max(map(len, lists.values()), default=0)
        if longest * MOST_BY_CHANCE < min(self.budgets):
            return (
                f"no kind of question has enough known answers: {longest}, and guesses would be "
                f"right by chance in more than {MOST_BY_CHANCE:.0%}"
            )
        looked = given.seen.setdefault("answer chances", _Looked(lists))
        return [
            Try(f"B={budget}", read=looked.reader(budget, type(self).scores))
            for budget in self.budgets
        ]


@ATTACKS.register("head_projection")
class HeadProjection(_Readout):
    """The answers that are most probable at any layer.

    Attributes:
        budgets: Guesses at each answer, B; a try each.
    """

    scores: ClassVar[Scores] = staticmethod(readout.head_projection)


@ATTACKS.register("probability_delta")
class ProbabilityDelta(_Readout):
    """The answers that any layer makes most probable, or improbable.

    Attributes:
        budgets: Guesses at each answer, B; a try each.
    """

    scores: ClassVar[Scores] = staticmethod(readout.probability_delta)


@ATTACKS.register("second_difference")
class SecondDifference(_Readout):
    """The answers whose probability bends most from layer to layer.

    Attributes:
        budgets: Guesses at each answer, B; a try each.
    """

    scores: ClassVar[Scores] = staticmethod(readout.second_difference)


def answer_lists(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """What open questions on photos are known to have as answers, by topic and in their order.

    Answers that say that one does not know are left out, and questions without a topic.
    """
    found: dict[str, dict[str, str]] = {}
    for record in records:
        asked = record.form == "open" and record.image is not None and record.topic
        if asked and not is_unknown(record.answer):
            found.setdefault(record.topic, {}).setdefault(normalise(record.answer), record.answer)
    return {topic: tuple(text for _, text in sorted(own.items())) for topic, own in found.items()}


# By topic: rows of the records, the chances of the answers in each layer, (row, layer, answer), and
# the numbers of the right ones.
_Seen = Mapping[str, tuple[list[int], NDArray[np.float64], NDArray[np.int64]]]


@dataclass
class _Looked:
    """What was seen of a model; the passes through it are made once for all readouts and budgets.

    Attributes:
        lists: Known answers by topic.
        asked: Records that were looked at last; others are looked at anew.
        seen: What was seen of these.
    """

    lists: Mapping[str, Sequence[str]]
    asked: tuple[Record, ...] | None = None
    seen: _Seen = field(default_factory=dict)

    def reader(self, budget: int, worth: Scores) -> Callable[[VLM, Sequence[Record]], Reading]:
        """Success at a budget, of answers in the order of what they are worth."""

        def read(vlm: VLM, records: Sequence[Record]) -> Reading:
            success = np.full(len(records), np.nan)
            for topic, (rows, chances, right) in self._looked(vlm, records).items():
                if budget <= MOST_BY_CHANCE * len(self.lists[topic]):
                    success[rows] = readout.guessed(worth(chances), right, budget)
            return Reading(success)

        return read

    def _looked(self, vlm: VLM, records: Sequence[Record]) -> _Seen:
        if self.asked == tuple(records):
            return self.seen
        seen: dict[str, Any] = {}
        for topic, answers in self.lists.items():
            numbers = {normalise(answer): number for number, answer in enumerate(answers)}
            rows = [
                row
                for row, record in enumerate(records)
                if record.topic == topic and record.image and normalise(record.answer) in numbers
            ]
            if rows and len(answers) > 1:
                chosen = [records[row] for row in rows]
                right = np.array([numbers[normalise(record.answer)] for record in chosen])
                seen[topic] = rows, answer_chances(vlm, chosen, answers), right
        self.asked, self.seen = tuple(records), seen
        return seen
