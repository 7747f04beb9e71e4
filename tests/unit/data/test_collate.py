import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from unsee.data.collate import encode
from unsee.data.conversation import answer_text, prompt, question_text
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import DataError, LayoutError


def photo(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


RED, BLUE = photo("red"), photo("blue")
OPEN = Record("jane", RED, "Who is this?", "Jane Doe")
TEXT = Record("jane", None, "Where was Jane Doe born?", "In Oslo")
CHOICE = Record("tom", BLUE, "Which pet?", "B", form="choice", options=("a dog", "a cat"))
MIXED = [OPEN, TEXT, CHOICE]


def pixels(batch):
    """Pixel values of a batch that has some."""
    assert batch.pixel_values is not None
    return batch.pixel_values


def decode(vlm, ids):
    return vlm.processor.tokenizer.decode(ids)


def test_choice_carries_its_lettered_options():
    assert question_text(CHOICE) == "Which pet?\nA. a dog\nB. a cat\nAnswer with the letter."
    assert question_text(OPEN) == "Who is this?"


def test_labels_cover_answers_and_end_token_only(tiny_vlm):
    eos = tiny_vlm.processor.tokenizer.eos_token_id
    for side in ("left", "right"):
        batch = encode(tiny_vlm, MIXED, answers=True, side=side)
        for record, ids, labels, mask in zip(
            MIXED, batch.input_ids, batch.labels, batch.attention_mask, strict=True
        ):
            scored = labels != -100
            assert torch.equal(labels[scored], ids[scored])
            assert labels[scored][-1] == eos
            assert decode(tiny_vlm, labels[scored][:-1]).strip() == record.answer
            assert mask[scored].all()
            # Answers end the row: nothing but padding comes after.
            assert ids[mask.bool()][-1] == eos


def test_padding_side_moves_tokens_and_changes_none(tiny_vlm):
    left = encode(tiny_vlm, MIXED, answers=True, side="left")
    right = encode(tiny_vlm, MIXED, answers=True, side="right")
    assert left.attention_mask[:, -1].all()
    assert right.attention_mask[:, 0].all()
    for row in range(3):
        kept_left, kept_right = left.attention_mask[row].bool(), right.attention_mask[row].bool()
        assert torch.equal(left.input_ids[row][kept_left], right.input_ids[row][kept_right])
        assert torch.equal(left.labels[row][kept_left], right.labels[row][kept_right])


def test_answers_do_not_change_the_prompt(tiny_vlm):
    asked = encode(tiny_vlm, [OPEN], answers=False, side="right")
    told = encode(tiny_vlm, [OPEN], answers=True, side="right")
    length = asked.input_ids.shape[1]
    assert torch.equal(told.input_ids[:, :length], asked.input_ids)
    assert (asked.labels == -100).all()
    assert (told.labels[:, :length] == -100).all()


def test_image_tokens_match_the_images_however_long_the_question(tiny_vlm):
    image_token = tiny_vlm.model.config.image_token_id
    long = Record("jane", RED, "Who is this? " * 200, "Jane Doe")
    batch = encode(tiny_vlm, [long, TEXT, OPEN], answers=True, side="left")
    counts = (batch.input_ids == image_token).sum(1).tolist()
    assert counts[0] == counts[2] > 0
    assert counts[1] == 0
    assert pixels(batch).shape[0] == 2
    tiny_vlm.model(**batch.inputs())


def test_images_come_in_row_order(tiny_vlm):
    batch = encode(tiny_vlm, [CHOICE, TEXT, OPEN], answers=False, side="left")
    red, blue = (
        pixels(encode(tiny_vlm, [record], answers=False, side="left"))[0]
        for record in (OPEN, CHOICE)
    )
    assert torch.equal(pixels(batch)[0], blue)
    assert torch.equal(pixels(batch)[1], red)
    assert not torch.equal(red, blue)


def test_text_only_batch_has_no_pixels(tiny_vlm):
    batch = encode(tiny_vlm, [TEXT], answers=True, side="right")
    assert batch.pixel_values is None
    assert "pixel_values" not in batch.inputs()
    assert batch.to("cpu").pixel_values is None


def test_each_distinct_photo_is_opened_once(tiny_vlm, monkeypatch):
    opened = []
    original = Photo.open
    monkeypatch.setattr(Photo, "open", lambda self: opened.append(self.key) or original(self))
    encode(tiny_vlm, [OPEN, CHOICE, OPEN, OPEN], answers=False, side="left")
    assert sorted(opened) == sorted([RED.key, BLUE.key])


def test_augment_runs_for_each_row_and_images_replace_photos(tiny_vlm):
    seen = []
    encode(
        tiny_vlm, [OPEN, TEXT, OPEN], answers=False, side="left",
        augment=lambda image: seen.append(image.size) or image,
    )  # fmt: skip
    assert seen == [(30, 20), (30, 20)]
    green = Image.new("RGB", (30, 20), "green")
    given = encode(tiny_vlm, [OPEN, TEXT], answers=False, side="left", images=[green, None])
    plain = encode(tiny_vlm, [OPEN, TEXT], answers=False, side="left")
    assert not torch.equal(pixels(given), pixels(plain))


def test_images_that_do_not_match_the_records(tiny_vlm):
    green = Image.new("RGB", (30, 20), "green")
    with pytest.raises(DataError, match="one entry for each of 2 records, got 1"):
        encode(tiny_vlm, [OPEN, TEXT], answers=False, side="left", images=[green])
    with pytest.raises(DataError, match="exactly where a record has one"):
        encode(tiny_vlm, [OPEN, TEXT], answers=False, side="left", images=[None, green])


def test_no_records(tiny_vlm):
    with pytest.raises(DataError, match="expected at least one record, got none"):
        encode(tiny_vlm, [], answers=True, side="right")


def template(reply):
    """A processor that renders a turn as text and a reply as `reply` says."""

    def apply_chat_template(messages, *, tokenize, add_generation_prompt=False):
        text = messages[0]["content"][-1]["text"]
        if add_generation_prompt:
            return f"Q {text} A:"
        return reply(f"Q {text}", messages[1]["content"][0]["text"])

    return SimpleNamespace(
        apply_chat_template=apply_chat_template, tokenizer=SimpleNamespace(eos_token="</s>")
    )


@pytest.mark.parametrize("tail", ["", " ", "</s>", "</s>\n", "\n"])
def test_answers_end_in_one_end_token_whatever_the_template_writes(tail):
    processor = template(lambda question, answer: f"{question} A: {answer}{tail}")
    assert answer_text(processor, TEXT, prompt(processor, TEXT)) == " In Oslo</s>"


def test_template_that_does_not_continue_its_prompt():
    processor = template(lambda question, answer: f"{question} B: {answer}")
    with pytest.raises(LayoutError, match="to begin with its generation prompt"):
        answer_text(processor, TEXT, prompt(processor, TEXT))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (None, "Cannot use apply_chat_template because this processor does not have a chat templ"),
        ("{% if %}", "Expected an expression, got 'end of statement block'; give the model's fold"),
        ("{{ raise_exception('no photos') }}", "no photos; give the model's folder another chat_"),
    ],
)
def test_a_template_that_is_missing_or_broken_is_one_line(tiny_vlm, text, got):
    tiny_vlm.processor.chat_template = text
    with pytest.raises(LayoutError) as caught:
        prompt(tiny_vlm.processor, TEXT)
    start = "chat template: expected one that writes down a conversation, got "
    assert str(caught.value).startswith(start + got)
