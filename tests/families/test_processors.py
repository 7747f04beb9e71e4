"""Processors where torchvision, or num2words, is missing: photos come out as in the full ones."""

import importlib.util
from typing import Any

import pytest
import torch
from transformers import AutoProcessor
from transformers.models.smolvlm import processing_smolvlm

from unsee.data.conversation import prompt
from unsee.models.families import FAMILIES
from unsee.models.load import load
from unsee.models.processors import NoVideo

VIDEO = ["internvl", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl"]
each_with_videos = pytest.mark.parametrize("family", VIDEO, indirect=True)


def made(processor, records):
    """What a processor makes of records with photos."""
    return processor(
        images=[record.image.open() for record in records],
        text=[prompt(processor, record) for record in records],
        padding=True,
        return_tensors="pt",
    )


@pytest.fixture
def with_photos(mixed_records):
    return [record for record in mixed_records if record.image is not None]


@each_with_videos
def test_photos_are_read_with_pillow_and_the_class_is_the_family_s_own(vlm):
    kind = type(vlm.processor)
    assert type(vlm.processor.image_processor).__name__.endswith("ImageProcessorPil")
    assert any(base.__module__.startswith("transformers.models.") for base in kind.mro())
    assert kind.__name__.endswith("Processor")


@each_with_videos
@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="the full processor needs torchvision"
)
def test_tensors_are_those_of_the_full_processor(vlm, family, tiny_families, with_photos):
    full = AutoProcessor.from_pretrained(tiny_families(family))
    full.image_processor = vlm.processor.image_processor
    expected, found = made(full, with_photos), made(vlm.processor, with_photos)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_tensors_are_those_of_image_processor_and_tokenizer(vlm, with_photos):
    """By hand: each image mark is repeated once for every four patches."""
    found = made(vlm.processor, with_photos)
    photos = [record.image.open() for record in with_photos]
    images = vlm.processor.image_processor(photos, return_tensors="pt")
    assert torch.equal(found["pixel_values"], images["pixel_values"])
    assert torch.equal(found["image_grid_thw"], images["image_grid_thw"])
    texts = [
        prompt(vlm.processor, record).replace("<|image_pad|>", "<|image_pad|>" * (h * w // 4))
        for record, (_, h, w) in zip(with_photos, images["image_grid_thw"].tolist(), strict=True)
    ]
    tokens = vlm.processor.tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(found["input_ids"], tokens["input_ids"])
    assert torch.equal(found["attention_mask"], tokens["attention_mask"])
    marks = found["input_ids"] == vlm.model.config.image_token_id
    assert torch.equal(found["mm_token_type_ids"], marks.long())


def test_smolvlm_is_read_as_by_its_own_processor(tiny_families, mixed_records, monkeypatch):
    vlm = load(tiny_families("smolvlm"), dtype="float32", device="cpu")
    own = processing_smolvlm.SmolVLMProcessor
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    monkeypatch.setattr(own, "check_argument_for_proper_class", lambda self, name, part: None)
    video = NoVideo()
    # What its chat template looks up, and does not use for photos.
    monkeypatch.setattr(NoVideo, "num_frames", 1, raising=False)
    monkeypatch.setattr(NoVideo, "fps", 1, raising=False)
    full: Any = own(
        vlm.processor.image_processor,
        vlm.processor.tokenizer,
        video,
        image_seq_len=4,
        chat_template=vlm.processor.chat_template,
    )
    nested = [[] if r.image is None else [r.image.open()] for r in mixed_records]
    expected, found = (
        processor(
            images=nested,
            text=[prompt(processor, record) for record in mixed_records],
            padding=True,
            return_tensors="pt",
        )
        for processor in (full, vlm.processor)
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_processor_without_its_video_part_can_be_saved(tiny_families, tmp_path):
    vlm = load(tiny_families("qwen2_5_vl"), dtype="float32", device="cpu")
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    again = load(tmp_path, dtype="float32", device="cpu")
    assert type(again.processor).__name__ == "Qwen2_5_VLProcessor"
    assert again.processor.chat_template == vlm.processor.chat_template
    assert again.processor.video_processor == vlm.processor.video_processor
    assert again.fingerprint == vlm.fingerprint


def test_paligemma_is_asked_as_its_processor_writes_it(tiny_families, mixed_records):
    """Its checkpoints come without a chat template."""
    vlm = load(tiny_families("paligemma"), dtype="float32", device="cpu")
    assert vlm.processor.tokenizer.chat_template is None
    assert prompt(vlm.processor, mixed_records[0]) == "<image>Who is this?"
    assert prompt(vlm.processor, mixed_records[1]) == mixed_records[1].question


def test_families_with_a_video_part_are_all_tried(tiny_families):
    for family in FAMILIES:
        kind = type(load(tiny_families(family), device="cpu").processor)
        assert ("video_processor" in kind.get_attributes()) == (family in VIDEO), family
