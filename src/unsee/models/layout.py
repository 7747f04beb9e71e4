"""Where vision tower, projector, language model and head are in a model."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from unsee.errors import LayoutError

PARTS = ("vision", "projector", "language", "head")
_SLICE = re.compile(r"(?P<part>vision\.blocks|language\.layers)\[(?P<index>-?\d*(:-?\d*)?)\]")


@dataclass(frozen=True)
class Layout:
    """Dotted paths from the top model, one instance a family.

    Attributes:
        family: Hugging Face's `model_type`.
        vision_tower: Turns pixels into patch features.
        vision_blocks: The tower's transformer blocks, a list of modules.
        projector: Turns patch features into visual tokens.
        language_model: Embeddings, layers and last norm; not the head.
        language_layers: The language model's transformer layers, a list of modules.
        head: Turns hidden states into logits.
        vision_mlp_in: Path below a vision block of the linear layer whose outputs are its neurons.
        vision_mlp_out: Path below a vision block of the linear layer that reads the neurons.
        image_token_id: Field of the model's configuration with the id of the image token.
        feature_layer: Field of the configuration with the hidden state of the tower that the
            projector reads, counted as Hugging Face does; None where it reads the last.
    """

    family: str
    vision_tower: str
    vision_blocks: str
    projector: str
    language_model: str
    language_layers: str
    head: str
    vision_mlp_in: str
    vision_mlp_out: str
    image_token_id: str = "image_token_id"
    feature_layer: str | None = None

    def check(self, model: nn.Module) -> None:
        """Refuse a model that lacks one of the parts.

        Raises:
            LayoutError: Names every missing path at once.
        """
        present = {name for name, _ in model.named_modules()}
        parts = {
            "vision tower": self.vision_tower,
            "vision blocks": self.vision_blocks,
            "projector": self.projector,
            "language model": self.language_model,
            "language layers": self.language_layers,
            "head": self.head,
        }
        missing = [f"{part} at {path!r}" for part, path in parts.items() if path not in present]
        if missing:
            raise LayoutError(
                f"{type(model).__name__}: not laid out as family {self.family!r}; "
                f"no {', no '.join(missing)}; fix its row in models/families.py"
            )

    def vision_block_paths(self, model: nn.Module) -> list[str]:
        """Paths of the vision tower's blocks, first to last."""
        return _children(model, self.vision_blocks)

    def used_vision_blocks(self, model: Any) -> int:
        """How many vision blocks, from the first, reach the projector.

        LLaVA-1.5 reads the last hidden state but one: its last block gets no gradient, and training
        "the last block" would train nothing.
        """
        blocks = len(self.vision_block_paths(model))
        if self.feature_layer is None:
            return blocks
        chosen = getattr(model.config, self.feature_layer)
        numbers = chosen if isinstance(chosen, list) else [chosen]
        # Hidden state 0 is the embedding, so there is one more than there are blocks.
        return max(number if number >= 0 else blocks + 1 + number for number in numbers)

    def language_layer_paths(self, model: nn.Module) -> list[str]:
        """Paths of the language model's layers, first to last."""
        return _children(model, self.language_layers)

    def parameter_names(self, model: nn.Module, parts: Iterable[str]) -> list[str]:
        """Full names of all parameters in some parts of the model.

        Names are compared from the first dot on: a match by suffix would reach `q_proj` in the
        vision tower when the language model's is meant.

        Args:
            model: A model with this layout.
            parts: `vision`, `projector`, `language`, `head`, or some blocks or layers in Python's
                notation: `vision.blocks[-2:]`, `language.layers[0]`.

        Returns:
            Names in the model's order, each once.

        Raises:
            LayoutError: If a part is unknown or matches no parameter.
        """
        names = [name for name, _ in model.named_parameters()]
        chosen: set[str] = set()
        for part in parts:
            prefixes = tuple(f"{path}." for path in self._paths(model, part))
            found = [name for name in names if name.startswith(prefixes)]
            if not found:
                raise LayoutError(
                    f"{part!r} matches no parameter of {type(model).__name__}; "
                    f"choose among {', '.join(PARTS)}, vision.blocks[i:j], language.layers[i:j]"
                )
            chosen.update(found)
        return [name for name in names if name in chosen]

    def _paths(self, model: nn.Module, part: str) -> list[str]:
        whole = {
            "vision": self.vision_tower,
            "projector": self.projector,
            "language": self.language_model,
            "head": self.head,
        }
        if part in whole:
            return [whole[part]]
        match = _SLICE.fullmatch(part)
        if match is None or match["index"] == "":
            return []
        blocks = (
            self.vision_block_paths(model)
            if match["part"] == "vision.blocks"
            else self.language_layer_paths(model)
        )
        if ":" in match["index"]:
            start, stop = (int(end) if end else None for end in match["index"].split(":"))
            return blocks[start:stop]
        index = int(match["index"])
        return [blocks[index]] if -len(blocks) <= index < len(blocks) else []


def _children(model: nn.Module, path: str) -> list[str]:
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_children()]
