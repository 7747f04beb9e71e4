"""Questions on one photo share its pass; what is answered does not tell."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unsee import prefill
from unsee.answering import answer_logprobs, generate_answers
from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.families import FAMILIES
from unsee.models.hooks import edited
from unsee.prefill import prefilled

QUESTIONS = ("Who is this?", "What is the name of this person, please?", "Which pet?", "Why now?")
SHARING = sorted(name for name, layout in FAMILIES.items() if layout.shares_photos)


@pytest.fixture
def asked(mixed_records):
    """Four questions on each of two photos of one size, in turns."""
    first = mixed_records[0].image
    picture = first.open().transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    photos = (first, Photo(data=buffer.getvalue()))
    return [Record("", photo, text, "x") for text in QUESTIONS for photo in photos]


def next_token_logits(vlm, inputs):
    with torch.inference_mode():
        output = vlm.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=1,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=vlm.processor.tokenizer.pad_token_id,
        )
    return output.logits[0]


@pytest.mark.parametrize("family", SHARING)
def test_the_first_token_has_the_same_scores(vlm, asked):
    shared = prefilled(vlm, asked, answers=False)
    assert shared is not None
    whole = encode(vlm, asked, answers=False, side="left")
    torch.testing.assert_close(
        next_token_logits(vlm, shared.inputs()),
        next_token_logits(vlm, whole.inputs()),
        rtol=1e-4,
        atol=1e-5,
    )


def test_answers_are_those_of_single_questions(vlm, asked, mixed_records):
    records = [*mixed_records, *asked]
    alone = generate_answers(vlm, records, batch_size=1, max_new_tokens=6)
    assert generate_answers(vlm, records, max_new_tokens=6) == alone


def test_answers_are_scored_as_alone(vlm, asked, mixed_records):
    replies = ("Ada Rook", "a green cat", "I do not know")
    records = [*mixed_records, *(replace(r, answer=text) for r in asked for text in replies)]
    alone, counted = answer_logprobs(vlm, records, batch_size=1)
    together, counts = answer_logprobs(vlm, records)
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    np.testing.assert_array_equal(counts, counted)


@pytest.mark.parametrize("family", SHARING)
def test_each_photo_is_read_once(vlm, asked, monkeypatch):
    read = []

    def counted(vlm, records, **options):
        read.append(len(records))
        return encode(vlm, records, **options)

    monkeypatch.setattr(prefill, "encode", counted)
    generate_answers(vlm, asked, max_new_tokens=2)
    answer_logprobs(vlm, asked)
    assert read == [2, 2]


@pytest.mark.parametrize("family", ["llava"])
def test_an_edited_model_reads_whole_prompts(vlm, asked):
    with edited(vlm.model, vlm.layout, {}):
        assert prefilled(vlm, asked, answers=False) is None
    assert prefilled(vlm, asked, answers=False) is not None


@pytest.mark.parametrize("family", ["llava"])
def test_photos_that_are_not_shared_and_rows_without_one_are_read_whole(vlm, asked):
    assert prefilled(vlm, asked[:2], answers=False) is None
    assert prefilled(vlm, [*asked, Record("", None, "Why?", "x")], answers=False) is None


@pytest.mark.parametrize("family", ["llava"])
def test_a_processor_that_reads_another_question_is_given_whole_prompts(vlm, asked, monkeypatch):
    def more(vlm, records, **options):
        batch = encode(vlm, records, **options)
        ids = batch.input_ids.clone()
        ids[:, -2] += 1
        return replace(batch, input_ids=ids)

    monkeypatch.setattr(prefill, "encode", more)
    assert prefilled(vlm, asked, answers=False) is None
