"""Random models of every family for tests, made without network: a LLaVA of some 60,000 parameters.

Every other family is a row of `unsee.models.tiny.families`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from unsee.models.tiny.words import SPECIAL_TOKENS, WORDS, chat_template, tiny_tokenizer
from unsee.models.tiny.writing import write_tiny

IMAGE_SIDE = 48
PATCH_SIDE = 8
WIDTH = 32


def tiny_model(family: str, folder: str | Path, seed: int = 0) -> Path:
    """Write a random model of a family with tokenizer, image processor and chat template.

    Args:
        family: Hugging Face's `model_type`, one of `unsee.models.families.FAMILIES`.
        folder: Where to write it; an ordinary Hugging Face folder afterwards.
        seed: Seeds the weights; the caller's random state is left alone.

    Returns:
        The folder.
    """
    return tiny_llava(folder, seed) if family == "llava" else write_tiny(family, folder, seed)


def tiny_llava(folder: str | Path, seed: int = 0, words: Iterable[str] = WORDS) -> Path:
    """Write a random LLaVA with tokenizer, image processor and chat template.

    Args:
        folder: Where to write it; an ordinary Hugging Face folder afterwards.
        seed: Seeds the weights; the caller's random state is left alone.
        words: What the tokenizer is trained on; any other text can be encoded too.

    Returns:
        The folder.
    """
    folder = Path(folder)
    tokenizer = tiny_tokenizer({"image_token": "<image>"}, words)
    _model(tokenizer, seed).save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    return folder


def _processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE},
            crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="default",
        # CLIP's class token, which the "default" strategy drops again.
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    )


def _model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaForConditionalGeneration:
    special: dict[str, Any] = {
        "bos_token_id": SPECIAL_TOKENS.index("<s>"),
        "eos_token_id": SPECIAL_TOKENS.index("</s>"),
        "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=IMAGE_SIDE,
            patch_size=PATCH_SIDE,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=WIDTH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=1024,
            # At the default 0.02 so small a model says nearly the same about everything.
            initializer_range=0.2,
            tie_word_embeddings=False,
            **special,
        ),
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_SIDE // PATCH_SIDE) ** 2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    return model
