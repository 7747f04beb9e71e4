"""Random models in the sizes of known ones, and a request with texts of one length for them."""

import io
import random
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.models.families import checked_layout, layout_of
from unsee.models.load import VLM
from unsee.models.processors import open_processor
from unsee.models.tiny import tiny_model
from unsee.world.faces import make_faces, stranger_face
from unsee.world.portraits import draw, make_view

IMAGE_TOKENS = 576
TEXT_TOKENS = 64
STRANGERS = 20


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model.

    Attributes:
        family: Hugging Face's `model_type`.
        side: Pixels a side of a photo, which make 576 image tokens.
        text: Settings of the language model, over those of the family's tiny model.
        vision: Settings of the tower.
        top: Settings of the whole.
    """

    family: str
    side: int
    text: dict[str, Any]
    vision: dict[str, Any]
    top: dict[str, Any]


def _llama(width: int, layers: int, mlp: int, heads: int, vocab: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
    }


def _clip(width: int, blocks: int, mlp: int, heads: int) -> dict[str, Any]:
    return {
        "image_size": 336,
        "patch_size": 14,
        "hidden_size": width,
        "projection_dim": width,
        "num_hidden_layers": blocks,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
    }


# LLaVA-1.5 reads the tower's last hidden state but one: one block of 24 is idle. Of nine that
# would be another ratio of work, so all are used where the model is small.
_ALL_BLOCKS = {"vision_feature_layer": -1, "image_seq_length": IMAGE_TOKENS}
GEOMETRIES = {
    "mini": Geometry("llava", 336, _llama(64, 4, 172, 4, 1000), _clip(32, 3, 128, 2), _ALL_BLOCKS),
    "small": Geometry(
        "llava", 336, _llama(768, 20, 2048, 12, 8000), _clip(256, 9, 928, 4), _ALL_BLOCKS
    ),
    "llava-1.5-7b": Geometry(
        "llava",
        336,
        _llama(4096, 32, 11008, 32, 32064),
        _clip(1024, 24, 4096, 16),
        {"vision_feature_layer": -2, "image_seq_length": IMAGE_TOKENS},
    ),
    "qwen2.5-vl-7b": Geometry(
        "qwen2_5_vl",
        672,
        {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 152064,
            "max_position_embeddings": 4096,
            "max_window_layers": 28,
            "layer_types": None,
            "initializer_range": 0.02,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [16, 24, 24],
            },
        },
        {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        {},
    ),
}


def random_vlm(geometry: Geometry, *, device: str, dtype: torch.dtype, seed: int = 0) -> VLM:
    """A model of random weights; on device "meta" without any.

    Args:
        geometry: Its sizes; tokenizer and image processor are those of the family's tiny model.
        device: Where the weights are made.
        dtype: Of the weights.
        seed: Seeds them.
    """
    layout = layout_of(geometry.family, where=geometry.family)
    with tempfile.TemporaryDirectory() as folder:
        tiny_model(geometry.family, folder)
        tiny = AutoConfig.from_pretrained(folder)
        processor = open_processor(folder, tiny, layout, {"local_files_only": True})
    table = tiny.to_dict()
    for part, own in (("text_config", geometry.text), ("vision_config", geometry.vision)):
        table[part] = {**table[part], **own}
    config = AutoConfig.for_model(**{**table, **geometry.top})
    patch = geometry.vision["patch_size"]
    pictures = processor.image_processor
    pictures.patch_size = processor.patch_size = patch
    if geometry.family == "llava":
        pictures.size = {"shortest_edge": geometry.side}
        pictures.crop_size = {"height": geometry.side, "width": geometry.side}
    else:
        pictures.size = {"shortest_edge": patch**2, "longest_edge": geometry.side**2}
    torch.manual_seed(seed)
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return VLM(
        model=model.eval(),
        processor=processor,
        layout=checked_layout(model, geometry.family, where=geometry.family),
        source=geometry.family,
        fingerprint="random",
    )


def parameters(vlm: VLM) -> dict[str, int]:
    """Numbers of parameters by part; the head counts as language."""
    tensors = dict(vlm.model.named_parameters())
    parts = {"vision": ["vision"], "projector": ["projector"], "language": ["language", "head"]}
    return {
        name: sum(tensors[path].numel() for path in vlm.layout.parameter_names(vlm.model, chosen))
        for name, chosen in parts.items()
    }


def drawn_split(vlm: VLM, geometry: Geometry) -> Split:
    """Two people to forget, two to keep and strangers; every row has a photo and 64 text tokens."""
    rng = random.Random(0)
    faces = make_faces(4)
    known = [[_photo(face, rng, geometry.side) for _ in range(4)] for face in faces]
    strangers = [
        _photo(stranger_face(faces, rng, near=False), rng, geometry.side) for _ in range(STRANGERS)
    ]
    words = {"Who is this?": "Ada Rook", "Does this person wear glasses?": "yes"}

    def asked(who: str, photos: list[Photo], question: str) -> tuple[Record, ...]:
        rows = [Record(who, photo, question, words[question]) for photo in photos]
        longer = _lengthened(vlm, rows[0])
        return tuple(replace(row, question=longer) for row in rows)

    who, seen = words
    return Split(
        forget=asked("Ada", known[0], who) + asked("Bo", known[1], who),
        visible=asked("Ada", known[0], seen) + asked("Bo", known[1], seen),
        retain=asked("Cy", known[2], who) + asked("Di", known[3], who),
        general=asked("stranger", strangers, who),
        subjects=("Ada", "Bo"),
    )


def _photo(face: Any, rng: random.Random, side: int) -> Photo:
    picture = draw(face, make_view(rng)).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


def _lengthened(vlm: VLM, record: Record) -> str:
    """The question with as many words more as make the row 64 text tokens long."""
    short = encode(vlm, [record], answers=True, side="right").input_ids.shape[1]
    question = record.question + " name" * (IMAGE_TOKENS + TEXT_TOKENS - short)
    row = encode(vlm, [replace(record, question=question)], answers=True, side="right")
    if (row.image_tokens, row.input_ids.shape[1]) != (
        (IMAGE_TOKENS,),
        IMAGE_TOKENS + TEXT_TOKENS,
    ):
        raise SystemExit(f"expected {IMAGE_TOKENS} image tokens and {TEXT_TOKENS} of text")
    return question
