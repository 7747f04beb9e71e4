"""Records to tensors in every family: what a row is does not depend on the rows beside it."""

import pytest
import torch

from unsee.answering import answer_logprobs, generate_answers
from unsee.data.collate import encode


def logits(vlm, records, side):
    """Logits of each row without its padding, (tokens, vocab)."""
    batch = encode(vlm, records, answers=True, side=side)
    with torch.no_grad():
        scores = vlm.model(**batch.inputs(), use_cache=False).logits
    return [row[kept] for row, kept in zip(scores, batch.attention_mask.bool(), strict=True)]


def beside(vlm, records):
    """The records that may share a batch."""
    if vlm.layout.mixes_rows:
        return [records]
    return [[r for r in records if r.image is not None], [r for r in records if r.image is None]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_cover_answers_and_image_tokens_match_the_images(vlm, mixed_records, side):
    batch = encode(vlm, mixed_records, answers=True, side=side)
    tokenizer = vlm.processor.tokenizer
    token = getattr(vlm.model.config, vlm.layout.image_token_id)
    counts = (batch.input_ids == token).sum(1).tolist()
    assert [count > 0 for count in counts] == [r.image is not None for r in mixed_records]
    assert batch.image_tokens == tuple(count for count in counts if count)
    for record, ids, labels, mask in zip(
        mixed_records, batch.input_ids, batch.labels, batch.attention_mask, strict=True
    ):
        scored = labels != -100
        assert torch.equal(labels[scored], ids[scored])
        assert tokenizer.decode(labels[scored]).strip() == f"{record.answer}</s>"
        assert mask[scored].all()
        assert ids[mask.bool()][-1] == tokenizer.eos_token_id
    # Refuses image tokens that do not match the photos.
    vlm.model(**batch.inputs())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_has_the_same_logits_alone_and_in_a_mixed_batch(vlm, mixed_records, side):
    for records in beside(vlm, mixed_records):
        together = logits(vlm, records, side)
        for record, row in zip(records, together, strict=True):
            torch.testing.assert_close(row, logits(vlm, [record], side)[0], rtol=0, atol=1e-4)


def test_an_answer_is_not_read_before_it_is_written(vlm, mixed_records, monkeypatch):
    """Logits with an answer in the row are those of generation, token by token."""
    token = getattr(vlm.model.config, vlm.layout.image_token_id)
    compared = 0
    for record in mixed_records:
        asked = encode(vlm, [record], answers=False, side="left")
        with torch.inference_mode():
            written = vlm.model.generate(
                **asked.inputs(), do_sample=False, max_new_tokens=5, min_new_tokens=5
            )
        length = asked.input_ids.shape[1]
        reply = written[0, length:]
        if token in reply:
            continue  # A random model may write one; no photo belongs to it.
        with monkeypatch.context() as patch:
            patch.setattr("unsee.data.collate.answer_ids", lambda *_, r=reply: [r.tolist()])
            told = logits(vlm, [record], "right")[0]
        told[:, vlm.processor.tokenizer.eos_token_id] = -torch.inf
        assert told[length - 1 : -1].argmax(-1).tolist() == reply.tolist()
        compared += 1
    assert compared >= 2


def test_answers_do_not_depend_on_the_batch(vlm, mixed_records):
    together = generate_answers(vlm, mixed_records, max_new_tokens=5)
    alone = [generate_answers(vlm, [record], max_new_tokens=5)[0] for record in mixed_records]
    assert together == alone
    sums, tokens = answer_logprobs(vlm, mixed_records)
    for record, found, count in zip(mixed_records, sums, tokens, strict=True):
        one, one_count = answer_logprobs(vlm, [record])
        assert found == pytest.approx(one[0], abs=1e-3)
        assert count == one_count[0]


def test_a_photo_is_seen(vlm, mixed_records):
    """Another photo under the same question gives other logits."""
    ada = mixed_records[0]
    swapped = encode(vlm, [ada], answers=True, side="right", images=[ada.image.open().rotate(180)])
    own = encode(vlm, [ada], answers=True, side="right")
    with torch.no_grad():
        found = vlm.model(**swapped.inputs()).logits - vlm.model(**own.inputs()).logits
    assert found[:, -1].abs().max() > 1e-3
