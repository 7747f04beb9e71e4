"""Questions behind other turns, with other photos, and answers that have begun."""

import hashlib
import io
import json

import pytest
import torch
from PIL import Image

from unsee.answering import answer_logprobs, generate_answers
from unsee.data.collate import encode
from unsee.data.conversation import prompt
from unsee.data.images import Photo
from unsee.data.records import Record, Turn
from unsee.replies import question_digest


def photo(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


RED, BLUE = photo("red"), photo("blue")
PLAIN = Record("jane", RED, "Who is this?", "Jane Doe")
BEGUN = Record("jane", RED, "Who is this?", "Jane Doe", opening="The name is")
LATER = Record("jane", None, "Who is this?", "Jane", before=(Turn("Glasses?", "no", RED),))
TAUGHT = Record("jane", RED, "What pet?", "a cat", before=(Turn("Who?", "Jane", BLUE),))
TEXT = Record("jane", None, "Where was Jane Doe born?", "In Oslo")
ALL = [PLAIN, BEGUN, LATER, TAUGHT, TEXT]


def test_photos_of_a_conversation_come_in_its_order():
    assert [len(record.images) for record in ALL] == [1, 1, 1, 2, 0]
    assert TAUGHT.images == (BLUE, RED)


def test_prompts_hold_the_turns_and_what_has_begun(tiny_vlm):
    assert prompt(tiny_vlm.processor, BEGUN).endswith("USER: Who is this? ASSISTANT: The name is")
    assert prompt(tiny_vlm.processor, LATER) == (
        "<image>\nUSER: Glasses? ASSISTANT: no</s>USER: Who is this? ASSISTANT:"
    )
    assert prompt(tiny_vlm.processor, TAUGHT).count("<image>") == 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_cover_the_answer_behind_what_has_begun(tiny_vlm, side):
    batch = encode(tiny_vlm, ALL, answers=True, side=side)
    tokenizer = tiny_vlm.processor.tokenizer
    for record, ids, labels in zip(ALL, batch.input_ids, batch.labels, strict=True):
        scored = labels != -100
        assert tokenizer.decode(labels[scored]).strip() == f"{record.answer}</s>"
        assert (record.opening or "ASSISTANT:") in tokenizer.decode(ids[~scored])
    assert batch.pixel_values is not None
    assert len(batch.pixel_values) == 5
    tiny_vlm.model(**batch.inputs())


def test_every_photo_of_a_conversation_is_seen(tiny_vlm):
    from dataclasses import replace

    swapped = replace(TAUGHT, before=(replace(TAUGHT.before[0], image=RED),))
    with torch.no_grad():
        first, second = (
            tiny_vlm.model(**encode(tiny_vlm, [r], answers=False, side="left").inputs()).logits
            for r in (TAUGHT, swapped)
        )
    assert (first - second)[:, -1].abs().max() > 1e-4


def test_batches_answer_like_single_questions(tiny_vlm):
    single = generate_answers(tiny_vlm, ALL, batch_size=1, max_new_tokens=8)
    assert generate_answers(tiny_vlm, ALL, max_new_tokens=8) == single
    sums, counts = answer_logprobs(tiny_vlm, ALL)
    alone = [answer_logprobs(tiny_vlm, [record]) for record in ALL]
    assert sums == pytest.approx([float(s[0]) for s, _ in alone], rel=1e-4)
    assert counts.tolist() == [int(n[0]) for _, n in alone]


def test_kept_answers_of_plain_questions_are_still_found():
    asked = [RED.key, "Who is this?", "open", []]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    assert question_digest(PLAIN) == digest
    assert len({question_digest(record) for record in ALL}) == len(ALL)
