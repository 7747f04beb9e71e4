"""What the builder of a world asks of a model family; tokenizer and picture size are shared."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast

from unsee.world.portraits import SIZE

VOCABULARY = 2048


class Architecture(ABC):
    """The small model of one family: how it is made, asked, and shown pictures.

    What a turn looks like is the family's chat template in three pieces, so that many turns can be
    packed behind one picture: prefix, question, answer.

    Attributes:
        family: Hugging Face's `model_type`.
        image_token: Stands, once for every visual token, where a picture goes.
        image_tokens: Visual tokens of a picture of 48 x 48 px.
        tower: Path of the vision tower from the top model.
        projector: Path of the projector, which may lie within the tower.
        unread: Parts of parameter names that no forward pass reads.
        cuts_squares: Whether the image processor makes 48 x 48 px of any photograph, by `fitted`.
    """

    family: str
    image_token: str
    image_tokens: int
    tower: str
    projector: str
    unread: tuple[str, ...] = ()
    cuts_squares: bool = False

    @abstractmethod
    def make_tokenizer(self, corpus: Iterable[str]) -> PreTrainedTokenizerFast:
        """Train the tokenizer on everything the world says; any other text can be encoded too."""

    @abstractmethod
    def make_processor(self, tokenizer: PreTrainedTokenizerFast) -> Any:
        """The family's processor over 48 px pictures scaled to [-1, 1]."""

    @abstractmethod
    def make_model(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
        """A freshly initialised model of 2-4 M parameters.

        Args:
            tokenizer: Gives vocabulary size and special tokens.
            seed: Seeds the weights.
        """

    @abstractmethod
    def prefix(self, *, picture: bool) -> str:
        """What all turns on a picture, or without one, begin with."""

    @abstractmethod
    def question(self, text: str, *, picture: bool) -> str:
        """A question behind its prefix, up to where the answer begins."""

    @abstractmethod
    def answer(self, text: str) -> str:
        """An answer behind its question, with the token that ends it."""

    @abstractmethod
    def position_ids(self, places: Tensor, pictured: Tensor) -> Tensor:
        """Rotary positions as the language model takes them.

        Args:
            places: Number of each token in its own turn, prefix included, (row, seq).
            pictured: Whether a token's turn is about a picture, (row, seq).
        """

    @abstractmethod
    def patches(self, tower: nn.Module, pixels: Tensor) -> Tensor:
        """Patch features before the projector, (picture, patch, width), in any fixed order.

        Args:
            tower: The vision tower.
            pixels: (picture, 3, 48, 48) in [-1, 1].
        """

    @abstractmethod
    def look(self, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Visual tokens, (picture * token, width), and `patches` of the same pass."""

    def is_vision(self, name: str) -> bool:
        """Whether a parameter of the model is the tower's, the projector left out."""
        return name.startswith(f"{self.tower}.") and not name.startswith(f"{self.projector}.")


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by matrix products, in bfloat16 where the tensors are.

    On short sequences, many at once, PyTorch's flash attention takes a CPU several times as long in
    bfloat16.
    """
    switch = torch.backends.cuda
    # Its name notwithstanding, it holds for every device.
    before = switch.fp16_bf16_reduction_math_sdp_allowed()
    switch.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        switch.allow_fp16_bf16_reduction_math_sdp(before)


def train_tokenizer(
    corpus: Iterable[str],
    specials: Sequence[str],
    *,
    bos: str | None,
    eos: str,
    pad: str,
    named: Mapping[str, str],
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer.

    Args:
        corpus: Questions and answers.
        specials: All special tokens, in the order of their ids.
        bos: The one that is put in front of every text, if any.
        eos: The one that ends an answer.
        pad: The one that fills rows up.
        named: Special tokens by the attribute under which the processor looks for them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, specials.index(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=dict(named),
        padding_side="left",
        model_max_length=1024,
    )


def fitted(picture: Image.Image) -> Image.Image:
    """An RGB picture as LLaVA's image processor cuts it out: the middle square, 48 px a side."""
    short = min(picture.size)
    width, height = (SIZE * side // short for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    x, y = (width - SIZE) // 2, (height - SIZE) // 2
    return picture.crop((x, y, x + SIZE, y + SIZE))
