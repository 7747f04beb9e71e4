"""What an edit knows of a forward pass, and what may be said about passes from outside."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor


def last_of(where: Tensor) -> Tensor:
    """Position of the last True of each row; the last position where there is none, (batch,)."""
    return where.shape[1] - 1 - where.flip(1).int().argmax(1)


@dataclass(frozen=True)
class Pass:
    """One forward pass of the whole model, as the edits in its layers see it.

    Attributes:
        tokens: True on the tokens that are read in this pass, False on padding.
        image_tokens: True where a photo's features stand.
        prompt: True on the tokens of prompts. All tokens, but for answers that are scored behind
            their prompts (see `scoring`); none while an answer is written.
        prefill: Whether prompts are read: the cache is empty, or several tokens come at once
            behind it, which is a prompt that goes on. Answers are written a token a pass.
        has_image: Which rows have a photo, in this pass or in what is cached.
        turn_ends: True on the last token of each of the user's turns, where a reply begins; where
            there is none to be seen, on the last prompt token. None while an answer is written.
        forms: Form of each row's question, as in `unsee.data.records.FORMS`; empty where nobody
            says (see `asking`).
        memo: Lives as long as the pass, so that one decision serves all layers.
    """

    tokens: Bool[Tensor, "batch seq"]
    image_tokens: Bool[Tensor, "batch seq"]
    prompt: Bool[Tensor, "batch seq"]
    prefill: bool
    has_image: Bool[Tensor, " batch"]
    turn_ends: Bool[Tensor, "batch seq"]
    forms: tuple[str, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """Position of each row's last prompt token."""
        return last_of(self.prompt)

    @property
    def shown(self) -> Bool[Tensor, "batch seq"]:
        """Whether a photo stands at or before each token, or in the cache."""
        cached = self.has_image & ~self.image_tokens.any(1)
        return (self.image_tokens.cumsum(1) > 0) | cached[:, None]

    def decided(self, margins: Float[Tensor, " batch"]) -> None:
        """Tell whoever reads margins (see `margins_read`) how an edit decided.

        Args:
            margins: Above 0 in rows where it acts on what comes next, -inf where it does not look.
        """
        told = _MARGINS.get()
        if told is not None:
            told.append(margins)


Edit = Callable[[Tensor, Pass], Tensor]

_MARGINS: ContextVar[list[Tensor] | None] = ContextVar("margins", default=None)


@contextmanager
def margins_read() -> Iterator[list[Tensor]]:
    """Collect by how much edits decide to act in the passes of the block.

    Yields:
        Filled by each decision of each pass, in their order: one tensor (batch,), gradients
        included, as `Pass.decided` was told.
    """
    told: list[Tensor] = []
    before = _MARGINS.set(told)
    try:
        yield told
    finally:
        _MARGINS.reset(before)


PROMPT: ContextVar[Tensor | None] = ContextVar("prompt", default=None)


@contextmanager
def scoring(prompt: Bool[Tensor, "batch seq"]) -> Iterator[None]:
    """Say that answers stand behind the prompts of the passes inside the block.

    An edit then treats them as it would treat an answer that is being written.

    Args:
        prompt: True on prompt tokens, False on answers and padding.
    """
    before = PROMPT.set(prompt)
    try:
        yield
    finally:
        PROMPT.reset(before)


FORMS: ContextVar[tuple[str, ...]] = ContextVar("forms", default=())


@contextmanager
def asking(forms: Sequence[str]) -> Iterator[None]:
    """Say of which form the questions of the passes inside the block are, one a row.

    Rows that a pass has more of, as beams, come in equal numbers behind one another.
    """
    before = FORMS.set(tuple(forms))
    try:
        yield
    finally:
        FORMS.reset(before)


BYPASSED: ContextVar[bool] = ContextVar("bypassed", default=False)


@contextmanager
def bypassed() -> Iterator[None]:
    """Let no edit act in the passes of the block: outputs are those without, bit for bit."""
    before = BYPASSED.set(True)
    try:
        yield
    finally:
        BYPASSED.reset(before)
