"""Write a tiny model of a family to a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from unsee.models.tiny.families import TEXT, TINY
from unsee.models.tiny.words import chat_template, tiny_tokenizer


def write_tiny(family: str, folder: str | Path, seed: int) -> Path:
    """Write a random model of a family of `TINY`; see `unsee.models.tiny.tiny_model`."""
    row = TINY[family]
    folder = Path(folder)
    tokenizer = tiny_tokenizer(row.tokens, marks=row.marks, begins=row.begins)
    special = {name: TEXT[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings = {"tie_word_embeddings": False, **row.top(tokenizer)}
    config = AutoConfig.for_model(
        family,
        text_config={**TEXT, "vocab_size": len(tokenizer), **row.text},
        vision_config=dict(row.vision),
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        _open_gates(model)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = getattr(transformers, f"{row.images}ImageProcessorPil")
    images(**row.image_settings).save_pretrained(folder)
    processor = {"processor_class": row.processor, **row.settings}
    if row.video is not None:
        # By hand: Hugging Face's own class does not open without torchvision.
        processor["video_processor"] = {"video_processor_type": row.video}
    _write_json(folder / "processor_config.json", processor)
    if row.mark is not None:
        (folder / "chat_template.jinja").write_text(chat_template(row.mark), encoding="utf-8")
    return folder


def _open_gates(model: torch.nn.Module) -> None:
    """Lets photos through where a family starts with none reaching the language model."""
    for name, parameter in model.named_parameters():
        if "cross_attn" in name and name.endswith("gate"):
            torch.nn.init.ones_(parameter)
        if name.endswith("mm_input_projection_weight"):
            torch.nn.init.normal_(parameter, std=0.2)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
