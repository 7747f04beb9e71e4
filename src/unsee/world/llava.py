"""The world's small LLaVA: an ordinary Hugging Face model, tokenizer and image processor."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unsee.world.architecture import Architecture, plain_attention, train_tokenizer
from unsee.world.portraits import SIZE

PATCH = 8
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}"
    "{% endfor %}"
    "USER: {% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}"
    "{% else %}"
    " ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


class Llava(Architecture):
    """CLIP tower of four blocks, two-layer projector, Llama of four layers, width 128."""

    family = "llava"
    image_token = "<image>"
    image_tokens = (SIZE // PATCH) ** 2
    tower = "model.vision_tower"
    projector = "model.multi_modal_projector"
    # The norm behind the last block: patch features are taken before it.
    unread = ("post_layernorm",)
    cuts_squares = True

    def make_tokenizer(self, corpus: Iterable[str]) -> PreTrainedTokenizerFast:
        """A tokenizer that puts `<s>` in front."""
        return train_tokenizer(
            corpus,
            ("<pad>", "<s>", "</s>", self.image_token),
            bos="<s>",
            eos="</s>",
            pad="<pad>",
            named={"image_token": self.image_token},
        )

    def make_processor(self, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
        """LLaVA's own."""
        return LlavaProcessor(
            image_processor=CLIPImageProcessorPil(
                size={"shortest_edge": SIZE},
                crop_size={"height": SIZE, "width": SIZE},
                image_mean=[0.5] * 3,
                image_std=[0.5] * 3,
            ),
            tokenizer=tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=CHAT_TEMPLATE,
        )

    def make_model(
        self, tokenizer: PreTrainedTokenizerFast, seed: int
    ) -> LlavaForConditionalGeneration:
        """About 2.7 M parameters."""
        token: Any = tokenizer.convert_tokens_to_ids
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(
                image_size=SIZE,
                patch_size=PATCH,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                projection_dim=128,
            ),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=768,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=1024,
                # The default 0.02 made this small model several times slower to train.
                initializer_range=0.05,
                bos_token_id=token("<s>"),
                eos_token_id=token("</s>"),
                pad_token_id=token("<pad>"),
                tie_word_embeddings=False,
            ),
            image_token_index=token(self.image_token),
            # All four blocks are used, where LLaVA-1.5 drops the last of 24.
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            image_seq_length=self.image_tokens,
            tie_word_embeddings=False,
        )
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        model.generation_config.eos_token_id = token("</s>")
        model.generation_config.pad_token_id = token("<pad>")
        model.generation_config.bos_token_id = token("<s>")
        return model

    def prefix(self, *, picture: bool) -> str:
        """The start token, and the picture's."""
        return "<s>" + self.image_token * self.image_tokens * picture

    def question(self, text: str, *, picture: bool) -> str:
        """On a line of its own below a picture."""
        return f"{chr(10) * picture}USER: {text} ASSISTANT:"

    def answer(self, text: str) -> str:
        """Behind a space."""
        return f" {text}</s>"

    def position_ids(self, places: Tensor, pictured: Tensor) -> Tensor:
        """The places themselves, (row, seq)."""
        return places

    def patches(self, tower: nn.Module, pixels: Tensor) -> Tensor:
        """All but the class token's."""
        with plain_attention():
            return tower(pixels).last_hidden_state[:, 1:]

    def look(self, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """36 visual tokens a picture, one a patch."""
        with plain_attention():
            seen = model.model.get_image_features(pixel_values=pixels)
        return torch.cat(list(seen.pooler_output)), seen.last_hidden_state[:, 1:]
