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
        projector: Turns patch features into visual tokens; may lie within the vision tower, and
            then counts as projector alone.
        language_model: Embeddings, layers and last norm; not the head.
        language_layers: The language model's transformer layers, a list of modules.
        head: Turns hidden states into logits.
        vision_mlp_in: Path below a vision block of the linear layer whose outputs are its neurons;
            the gate where there is one.
        vision_mlp_out: Path below a vision block of the linear layer that reads the neurons.
        language_mlp_out: The same below a language layer.
        last_norm: Path below the language model of the norm that the head reads from.
        image_token_id: Field of the model's configuration with the id of the image token.
        feature_layer: Field of the configuration with the hidden state of the tower that the
            projector reads, counted as Hugging Face does; None where it reads the last.
        later_vision_blocks: More blocks, where the tower has a second list behind the first.
        more_projectors: Modules and parameters that the language model also gets visual input
            from: projectors of inner blocks, the embedding of a line's end.
        visual_inputs: What the processor makes of photos, for the model's visual part.
        nested_images: Whether the processor takes a list of photos for each prompt.
        answer_token_type: Token type of answers. 1 where the language model reads tokens of type
            0, the prompt, in both directions: an answer must not be read before it is written.
        chat_template: For checkpoints of the family that come without one.
        language_features: Whether the language model's states at image tokens tell of the photo
            alone: not where they also read the question, or where photos enter elsewhere.
        shares_photos: Whether questions on one photo may share its pass: prompts are read from left
            to right, and a photo stands before its question.
        mixes_rows: Whether a row without a photo is answered alike beside rows with one.
        text_prompt: How a prompt without a photo is written where the processor refuses it, with
            `{bos}` and `{prompt}`; None where the processor takes it.
        converses: Whether prompts hold several turns and photos, and an answer that has begun.
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
    language_mlp_out: str = "mlp.down_proj"
    last_norm: str = "norm"
    image_token_id: str = "image_token_id"
    feature_layer: str | None = None
    later_vision_blocks: str | None = None
    more_projectors: tuple[str, ...] = ()
    visual_inputs: tuple[str, ...] = ("pixel_values",)
    nested_images: bool = False
    answer_token_type: int = 0
    chat_template: str | None = None
    language_features: bool = True
    shares_photos: bool = False
    mixes_rows: bool = True
    text_prompt: str | None = None
    converses: bool = True

    def check(self, model: nn.Module) -> None:
        """Refuse a model that lacks one of the parts.

        Raises:
            LayoutError: Names every missing path at once.
        """
        present = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
        parts = {
            "vision tower": self.vision_tower,
            "vision blocks": self.vision_blocks,
            "projector": self.projector,
            "language model": self.language_model,
            "language layers": self.language_layers,
            "head": self.head,
        }
        named = [*parts.items(), *(("projector", path) for path in self.more_projectors)]
        if self.later_vision_blocks is not None:
            named.append(("vision blocks", self.later_vision_blocks))
        missing = [f"{part} at {path!r}" for part, path in named if path not in present]
        if missing:
            raise LayoutError(
                f"{type(model).__name__}: not laid out as family {self.family!r}; "
                f"no {', no '.join(missing)}; fix its row in models/families.py"
            )

    def vision_block_paths(self, model: nn.Module) -> list[str]:
        """Paths of the vision tower's blocks, first to last."""
        later = self.later_vision_blocks
        return _children(model, self.vision_blocks) + (_children(model, later) if later else [])

    def projector_paths(self, model: nn.Module) -> list[str]:
        """Paths of the modules whose outputs are all that the language model gets of a photo."""
        modules = dict(model.named_modules())
        paths = [self.projector]
        for path in self.more_projectors:
            if isinstance(modules.get(path), nn.ModuleList):
                paths += _children(model, path)
        return paths

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

    def last_norm_path(self, model: nn.Module) -> str:
        """Path of the norm between the last language layer and the head.

        Raises:
            LayoutError: If it is not there.
        """
        path = f"{self.language_model}.{self.last_norm}"
        if path not in {name for name, _ in model.named_modules()}:
            raise LayoutError(
                f"{type(model).__name__}: no last norm at {path!r}, so that no layer can be read "
                "as the last one is; fix its row in models/families.py"
            )
        return path

    def parameter_names(self, model: nn.Module, parts: Iterable[str]) -> list[str]:
        """Full names of all parameters in some parts of the model.

        Names are compared from the first dot on: a match by suffix would reach `q_proj` in the
        vision tower when the language model's is meant.

        Args:
            model: A model with this layout.
            parts: `vision`, `projector`, `language`, `head`, or some blocks or layers in Python's
                notation: `vision.blocks[-2:]`, `language.layers[0]`.

        Returns:
            Names in the model's order, each once. A head that is tied to the embedding has no
            parameter of its own.

        Raises:
            LayoutError: If a part is unknown or matches no parameter.
        """
        names = [name for name, _ in model.named_parameters()]
        chosen: set[str] = set()
        for part in parts:
            found = _below(names, self._paths(model, part))
            if part == "vision":
                projector = set(_below(names, self._paths(model, "projector")))
                found = [name for name in found if name not in projector]
            if not found and not (part == "head" and self.has_tied_head(model)):
                raise LayoutError(
                    f"{part!r} matches no parameter of {type(model).__name__}; "
                    f"choose among {', '.join(PARTS)}, vision.blocks[i:j], language.layers[i:j]"
                )
            chosen.update(found)
        return [name for name in names if name in chosen]

    def has_tied_head(self, model: nn.Module) -> bool:
        """Whether the head reads with the embedding's own weights, which are `language`'s."""
        own = {id(p) for _, p in model.get_submodule(self.language_model).named_parameters()}
        head = list(model.get_submodule(self.head).parameters())
        return bool(head) and all(id(p) in own for p in head)

    def _paths(self, model: nn.Module, part: str) -> list[str]:
        whole = {
            "vision": [self.vision_tower],
            "projector": [self.projector, *self.more_projectors],
            "language": [self.language_model],
            "head": [self.head],
        }
        if part in whole:
            return whole[part]
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


def _below(names: Iterable[str], paths: Iterable[str]) -> list[str]:
    chosen = tuple(paths)
    below = tuple(f"{path}." for path in chosen)
    return [name for name in names if name in chosen or name.startswith(below)]


def _children(model: nn.Module, path: str) -> list[str]:
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_children()]
