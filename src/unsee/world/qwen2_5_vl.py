"""The world's small Qwen2.5-VL: windowed vision tower, merger, rotary positions of three axes."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from unsee.models.processors import without_video
from unsee.world.architecture import Architecture, train_tokenizer
from unsee.world.portraits import SIZE

PATCH = 8
MERGE = 2
FRAMES = 2
GRID = SIZE // PATCH
SIDE = GRID // MERGE
WINDOW = 32
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
# Tokens in front of a picture: <|im_start|>, user, the line's end, <|vision_start|>.
_BEFORE = 4


class Qwen25VL(Architecture):
    """Tower of four blocks, the last one over the whole picture, and a language model of four."""

    family = "qwen2_5_vl"
    image_token = "<|image_pad|>"
    image_tokens = SIDE**2
    tower = "model.visual"
    projector = "model.visual.merger"

    def make_tokenizer(self, corpus: Iterable[str]) -> PreTrainedTokenizerFast:
        """A tokenizer that puts nothing in front."""
        # Answers stand at the start of a line, so words are met without a space before them too.
        texts = list(corpus)
        turns = (f"user\nassistant\n{text.lstrip(' ')}" for text in texts)
        return train_tokenizer(
            chain(texts, turns),
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_NAMED.values()),
            bos=None,
            eos="<|im_end|>",
            pad="<|endoftext|>",
            named=_NAMED,
        )

    def make_processor(self, tokenizer: PreTrainedTokenizerFast) -> Any:
        """Qwen2.5-VL's own, without the part for videos."""
        images = Qwen2VLImageProcessorPil(
            patch_size=PATCH,
            merge_size=MERGE,
            temporal_patch_size=FRAMES,
            size={"shortest_edge": SIZE**2, "longest_edge": SIZE**2},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        return without_video(
            Qwen2_5_VLProcessor,
            images,
            tokenizer,
            {
                "chat_template": CHAT_TEMPLATE,
                "video_processor": {"video_processor_type": "Qwen2VLVideoProcessor"},
            },
        )

    def make_model(
        self, tokenizer: PreTrainedTokenizerFast, seed: int
    ) -> Qwen2_5_VLForConditionalGeneration:
        """About 3.1 M parameters."""
        token: Any = tokenizer.convert_tokens_to_ids
        config = Qwen2_5_VLConfig(
            vision_config={
                "depth": 4,
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_heads": 4,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": FRAMES,
                "window_size": WINDOW,
                "fullatt_block_indexes": [1, 3],
                "out_hidden_size": 128,
                "initializer_range": 0.05,
            },
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 128,
                "intermediate_size": 768,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 1024,
                # As in the world's LLaVA: the default 0.02 is several times slower to train.
                "initializer_range": 0.05,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    "mrope_section": [4, 6, 6],
                },
                "bos_token_id": None,
                "eos_token_id": token("<|im_end|>"),
                "pad_token_id": token("<|endoftext|>"),
                "tie_word_embeddings": False,
            },
            tie_word_embeddings=False,
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
        )
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        model.generation_config.eos_token_id = token("<|im_end|>")
        model.generation_config.pad_token_id = token("<|endoftext|>")
        return model

    def prefix(self, *, picture: bool) -> str:
        """The user's turn begins; a picture stands between its two marks."""
        tokens = self.image_token * self.image_tokens
        return "<|im_start|>user\n" + f"<|vision_start|>{tokens}<|vision_end|>" * picture

    def question(self, text: str, *, picture: bool) -> str:
        """The rest of the user's turn, and the head of the assistant's."""
        return f"{text}<|im_end|>\n<|im_start|>assistant\n"

    def answer(self, text: str) -> str:
        """Up to the end of the assistant's turn."""
        return f"{text}<|im_end|>"

    def position_ids(self, places: Tensor, pictured: Tensor) -> Tensor:
        """Time, row and column of each token, (3, row, seq).

        Of text all three are the same number. Visual tokens share one time and lie on a grid; what
        follows counts on from the grid's side, not from its area (Qwen2-VL, section 2.1,
        https://arxiv.org/abs/2409.12191).
        """
        seen = places - _BEFORE
        visual = pictured & (seen >= 0) & (seen < self.image_tokens)
        behind = pictured & (seen >= self.image_tokens)
        text = places - (self.image_tokens - SIDE) * behind
        axes = (torch.zeros_like(seen), seen // SIDE, seen % SIDE)
        return torch.stack([torch.where(visual, _BEFORE + axis, text) for axis in axes])

    def patches(self, tower: nn.Module, pixels: Tensor) -> Tensor:
        """36 patches a picture, window by window: one order for all pictures."""
        seen = tower(_flattened(pixels), grid_thw=_grids(pixels)).last_hidden_state
        return seen.unflatten(0, (len(pixels), -1))

    def look(self, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """9 visual tokens a picture, each of four patches."""
        seen = model.model.get_image_features(_flattened(pixels), _grids(pixels))
        patches = seen.last_hidden_state.unflatten(0, (len(pixels), -1))
        return torch.cat(list(seen.pooler_output)), patches


def _flattened(pixels: Tensor) -> Tensor:
    """Patches as the image processor lays them out, (picture * patch, 3 * frame * 8 * 8).

    The four patches that are merged follow one another; a photo is a film of two equal frames.
    """
    count = len(pixels)
    cut = pixels.reshape(count, 3, SIDE, MERGE, PATCH, SIDE, MERGE, PATCH)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    return cut.expand(*cut.shape[:6], FRAMES, PATCH, PATCH).reshape(count * GRID**2, -1)


def _grids(pixels: Tensor) -> Tensor:
    """Frames, rows and columns of patches of each picture, (picture, 3)."""
    return torch.tensor([[1, GRID, GRID]]).expand(len(pixels), 3)
