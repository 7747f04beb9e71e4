"""What an attack is: tries under which the same questions are asked again, or are read off."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unsee.data.records import Record, Split
from unsee.models.load import VLM

Group = Literal["prompts", "images", "weights", "readout", "relearning", "membership"]
Asked = Sequence[Record | None]
# How the model under attack answers, as often as an attack wants to know.
Tell = Callable[[Sequence[Record]], list[str]]


def unchanged(records: Sequence[Record], tell: Tell) -> Asked:
    """The questions as they are."""
    return records


@dataclass(frozen=True)
class Given:
    """What the attacker has beside the model.

    Attributes:
        split: What the method was given: none of its photos is asked about.
        changes_weights: Whether the erased model has other weights than base.
        has_eraser: Whether the erased model runs under an eraser.
        base: Tensors of base where the model's own may differ, by name; empty on base itself.
        seed: Of whatever an attack draws.
        found: What tries found on the model under attack, so that the others are asked just so; it
            is the first to be attacked.
        seen: What was seen of the model under attack, so that another attack need not look again.
    """

    split: Split
    changes_weights: bool = False
    has_eraser: bool = False
    base: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    found: dict[Any, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What was read off a model that nobody asked.

    Attributes:
        success: 1 where the answer was found, 0 where not, NaN where it could not be looked for;
            (record,).
        beside: Shares that stand beside it in the report, by name, such as of a control.
        content: What was read, where success can be told beside gold alone; `success` then says no
            more than which records were read.
        beside_gold: Takes this content and gold's, and gives `success` and `beside`.
        measure: What success is, where it is not that an answer was found.
    """

    success: NDArray[np.float64]
    beside: Mapping[str, float] = field(default_factory=dict)
    content: Any = None
    beside_gold: Callable[[Any, Any], tuple[NDArray[np.float64], Mapping[str, float]]] | None = None
    measure: str = ""


@dataclass(frozen=True)
class Try:
    """One way to ask again; the tries of an attack are its budget.

    Attributes:
        name: Within the attack; the same whatever the model.
        ask: The records as they are asked now, aligned with those given, with the same answers;
            None for one that cannot be asked so.
        change: What the model is changed to while it is asked; None leaves it as it is.
        made_of: What the change was made of beside the attack's settings, so that replies under
            another one are not taken for its own.
        read: Looks for the answers inside the model, in the place of asking.
    """

    name: str
    ask: Callable[[Sequence[Record], Tell], Asked] = unchanged
    change: Callable[[VLM], AbstractContextManager[None]] | None = None
    made_of: str = ""
    read: Callable[[VLM, Sequence[Record]], Reading] | None = None


@runtime_checkable
class Attack(Protocol):
    """Settings of an attack.

    One with `named_only = True` is left out of "all". One that trains or fits has `rows`, which
    takes the number of questions and tells how many rows of such passes that are on one model.

    Attributes:
        group: What it changes.
    """

    group: ClassVar[Group]

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """The tries on a model, the same in name and number for base, erased and gold.

        Returns:
            The tries, or why the attack cannot be run.
        """
        ...


@dataclass(frozen=True)
class Signals:
    """How much each pair of photo and question looks to a model like one it was trained on.

    Attributes:
        member: Whether the pair was trained on, (pair,).
        subjects: Whom each pair is about, (pair,).
        scores: Higher for what looks trained on, by name, (pair,) each.
    """

    member: NDArray[np.bool_]
    subjects: tuple[str, ...]
    scores: Mapping[str, NDArray[np.float64]]


@runtime_checkable
class Detects(Protocol):
    """Settings of an attack that brings back no answer: it tells what the model was trained on.

    Attributes:
        group: What it does.
    """

    group: ClassVar[Group]

    def signals(self, vlm: VLM, given: Given) -> Signals | str:
        """Scores of the same pairs for base, erased and gold.

        Returns:
            The scores, or why the attack cannot be run.
        """
        ...
