"""What an attack is: tries under which the same questions are asked again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from unsee.data.records import Record, Split
from unsee.models.load import VLM

Group = Literal["prompts", "images", "weights"]
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
    """

    split: Split
    changes_weights: bool = False
    has_eraser: bool = False
    base: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    found: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Try:
    """One way to ask again; the tries of an attack are its budget.

    Attributes:
        name: Within the attack; the same whatever the model.
        ask: The records as they are asked now, aligned with those given, with the same answers;
            None for one that cannot be asked so.
        change: What the model is changed to while it is asked; None leaves it as it is.
    """

    name: str
    ask: Callable[[Sequence[Record], Tell], Asked] = unchanged
    change: Callable[[VLM], AbstractContextManager[None]] | None = None


@runtime_checkable
class Attack(Protocol):
    """Settings of an attack.

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
