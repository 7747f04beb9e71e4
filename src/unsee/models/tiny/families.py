"""Tiny models of the families beside LLaVA: one row of settings each.

Photos of 48 pixels make a few image tokens, in several tiles where the family cuts photos up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unsee.models.tiny.words import SPECIAL_TOKENS

WIDTH = 32
TILE = 32
PATCH = 8
# All ways to lay out a photo on up to four tiles, as LLaVA-NeXT lists them.
GRID = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]

TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": WIDTH // 2,
    "max_position_embeddings": 1024,
    # At the default 0.02 so small a model says nearly the same about everything.
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "bos_token_id": SPECIAL_TOKENS.index("<s>"),
    "eos_token_id": SPECIAL_TOKENS.index("</s>"),
    "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
}
_VISION = {
    "image_size": TILE,
    "patch_size": PATCH,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_CLIP = {**_VISION, "model_type": "clip_vision_model", "projection_dim": WIDTH}
_SIGLIP = {**_VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
_SQUARE = {"height": TILE, "width": TILE}
_QWEN_VISION = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
_QWEN_IMAGES = {
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": (8 * PATCH) ** 2},
}
_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
_QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
_IDEFICS_MARKS = (
    "<fake_token_around_image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)
_IDEFICS_IMAGES = {
    "size": {"longest_edge": 2 * TILE},
    "max_image_size": {"longest_edge": TILE},
    "do_image_splitting": True,
}


@dataclass(frozen=True)
class Tiny:
    """What tells a tiny model of one family from the others.

    Attributes:
        processor: Class of the processor.
        images: Class of the image processor, without `ImageProcessorPil`.
        text: Of the language model's configuration, beside what all have.
        vision: The tower's configuration.
        top: Of the configuration as a whole; gets the tokenizer.
        image_settings: Of the image processor.
        settings: Of the processor.
        tokens: Special tokens by the attribute under which the processor looks for them.
        marks: Special tokens without an attribute.
        mark: What the chat template writes for a photo; None for a model without a template.
        begins: Whether the tokenizer writes the first token; else the template or the processor.
        video: Class of the video processor, for who has torchvision.
    """

    processor: str
    images: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    top: Callable[[Any], dict[str, Any]] = lambda tokenizer: {}
    image_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=lambda: {"image_token": "<image>"})
    marks: tuple[str, ...] = ()
    mark: str | None = "<image>"
    begins: bool = True
    video: str | None = None


def _image_token(field_name: str, token: str) -> Callable[[Any], dict[str, Any]]:
    return lambda tokenizer: {field_name: tokenizer.convert_tokens_to_ids(token)}


def _qwen(version: str, family: str, **vision: Any) -> Tiny:
    rope = _ROPE | ({"mrope_interleaved": True} if family == "qwen3_vl" else {})
    return Tiny(
        processor=f"{version}Processor",
        images="Qwen2VL",
        text={"model_type": f"{family}_text", "rope_parameters": rope},
        vision={**_QWEN_VISION, **vision},
        top=lambda tokenizer: {
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
            for name, token in zip(
                ("image", "video", "vision_start", "vision_end"),
                _QWEN_TOKENS.values(),
                strict=True,
            )
        },
        image_settings=_QWEN_IMAGES,
        tokens=_QWEN_TOKENS,
        mark=_QWEN_MARK,
        begins=False,
        video="Qwen3VLVideoProcessor" if family == "qwen3_vl" else "Qwen2VLVideoProcessor",
    )


def _idefics3(processor: str, images: str, video: str | None) -> Tiny:
    return Tiny(
        processor=processor,
        images=images,
        text={"model_type": "llama"},
        vision=_VISION,
        top=lambda tokenizer: {
            "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
            "scale_factor": 2,
        },
        image_settings=_IDEFICS_IMAGES,
        settings={"image_seq_len": 4},
        tokens={},
        marks=_IDEFICS_MARKS,
        video=video,
    )


TINY: dict[str, Tiny] = {
    "llava_next": Tiny(
        processor="LlavaNextProcessor",
        images="LlavaNext",
        text={"model_type": "llama"},
        vision=_CLIP,
        top=lambda tokenizer: {
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            "image_grid_pinpoints": GRID,
            "vision_feature_layer": -2,
        },
        image_settings={
            "size": {"shortest_edge": TILE},
            "crop_size": _SQUARE,
            "image_grid_pinpoints": GRID,
        },
        settings={
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "llava_onevision": Tiny(
        processor="LlavaOnevisionProcessor",
        images="LlavaOnevision",
        text={"model_type": "qwen2"},
        vision=_SIGLIP,
        top=lambda tokenizer: {
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
            "image_grid_pinpoints": GRID,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
        image_settings={"size": _SQUARE, "image_grid_pinpoints": GRID},
        settings={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        tokens={"image_token": "<image>", "video_token": "<video>"},
        begins=False,
        video="LlavaOnevisionVideoProcessor",
    ),
    "qwen2_vl": _qwen("Qwen2VL", "qwen2_vl", embed_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=2),
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        "qwen2_5_vl",
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        out_hidden_size=WIDTH,
        window_size=4 * PATCH,
        fullatt_block_indexes=[1],
    ),
    "qwen3_vl": _qwen(
        "Qwen3VL",
        "qwen3_vl",
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        out_hidden_size=WIDTH,
        num_position_embeddings=36,
        deepstack_visual_indexes=[0],
    ),
    "internvl": Tiny(
        processor="InternVLProcessor",
        images="GotOcr2",
        text={"model_type": "qwen2"},
        vision={**_VISION, "image_size": [TILE, TILE], "patch_size": [PATCH, PATCH]},
        top=_image_token("image_token_id", "<IMG_CONTEXT>"),
        image_settings={"size": _SQUARE, "crop_to_patches": True, "max_patches": 4},
        settings={"image_seq_length": 4},
        tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        mark="<IMG_CONTEXT>",
        begins=False,
        video="InternVLVideoProcessor",
    ),
    "idefics2": Tiny(
        processor="Idefics2Processor",
        images="Idefics2",
        text={"model_type": "mistral", "sliding_window": None},
        vision={**_VISION, "image_size": 48},
        top=lambda tokenizer: {
            "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
            "perceiver_config": {
                "hidden_size": WIDTH,
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": WIDTH // 2,
                "num_key_value_heads": 1,
            },
        },
        image_settings={
            "size": {"shortest_edge": 32, "longest_edge": 48},
            "do_image_splitting": False,
        },
        settings={"image_seq_len": 4},
        tokens={"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"},
        marks=("<end_of_utterance>",),
    ),
    "idefics3": _idefics3("Idefics3Processor", "Idefics3", None),
    "smolvlm": _idefics3("SmolVLMProcessor", "SmolVLM", "SmolVLMVideoProcessor"),
    "paligemma": Tiny(
        processor="PaliGemmaProcessor",
        images="Siglip",
        # Its processor gives the tokenizer 1152 more tokens, for places in the photo.
        text={"model_type": "gemma", "tie_word_embeddings": True, "vocab_size": 1600},
        vision={**_SIGLIP, "projection_dim": WIDTH},
        top=lambda tokenizer: {
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            "projection_dim": WIDTH,
            "hidden_size": WIDTH,
            "tie_word_embeddings": True,
        },
        image_settings={"size": _SQUARE, "image_seq_length": (TILE // PATCH) ** 2},
        mark=None,
        begins=False,
    ),
    "gemma3": Tiny(
        processor="Gemma3Processor",
        images="Gemma3",
        text={"model_type": "gemma3_text", "tie_word_embeddings": True, "sliding_window": 64},
        vision=_SIGLIP,
        top=lambda tokenizer: {
            "image_token_index": tokenizer.convert_tokens_to_ids("<image_soft_token>"),
            "boi_token_index": tokenizer.convert_tokens_to_ids("<start_of_image>"),
            "eoi_token_index": tokenizer.convert_tokens_to_ids("<end_of_image>"),
            "mm_tokens_per_image": 4,
            "tie_word_embeddings": True,
        },
        image_settings={"size": _SQUARE},
        settings={"image_seq_length": 4},
        tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        mark="<start_of_image>",
    ),
    "mllama": Tiny(
        processor="MllamaProcessor",
        images="Mllama",
        text={"model_type": "mllama_text_model", "cross_attention_layers": [1]},
        vision={
            "image_size": TILE,
            "patch_size": PATCH,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 1],
            # The last hidden state beside those of the two inner layers.
            "vision_output_dim": 3 * WIDTH,
            "supported_aspect_ratios": [
                [width, height]
                for width in range(1, 5)
                for height in range(1, 5)
                if width * height <= 4
            ],
        },
        top=_image_token("image_token_index", "<|image|>"),
        image_settings={"size": _SQUARE, "max_image_tiles": 4},
        tokens={"image_token": "<|image|>"},
        marks=("<|python_tag|>",),
        mark="<|image|>",
        begins=False,
    ),
}
