"""Where vision tower, projector, language model and head are in a model."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
        image_token_id: Field of the model's configuration with the id of the image token.
    """

    family: str
    vision_tower: str
    vision_blocks: str
    projector: str
    language_model: str
    language_layers: str
    head: str
    image_token_id: str = "image_token_id"

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
