import io

import numpy as np
import pytest
import torch
from PIL import Image

from unsee.answering import answer_logits, answer_logprobs, answer_scores, generate_answers
from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.losses import answer_token_logprobs, cross_entropy, sequence_logprob, unlikelihood


def photo(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


RECORDS = [
    Record("jane", photo(0), "Who is this?", "Jane Doe"),
    Record("jane", None, "Where was Jane Doe born, and when did she leave?", "In Oslo"),
    Record("tom", photo(1), "Which pet?", "B", form="choice", options=("a dog", "a cat")),
    Record("tom", photo(2), "Who is this person in the photo?", "Tom"),
    Record("tom", None, "Who?", "Tom"),
]


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_batches_answer_like_single_questions(tiny_vlm, batch_size):
    single = generate_answers(tiny_vlm, RECORDS, batch_size=1, max_new_tokens=12)
    together = generate_answers(tiny_vlm, RECORDS, batch_size=batch_size, max_new_tokens=12)
    assert together == single
    assert len(set(single)) > 1


def test_answers_keep_the_order_of_the_records(tiny_vlm):
    forwards = generate_answers(tiny_vlm, RECORDS, max_new_tokens=6)
    backwards = generate_answers(tiny_vlm, RECORDS[::-1], max_new_tokens=6)
    assert forwards == backwards[::-1]


def test_batches_score_like_single_answers(tiny_vlm):
    sums, counts = answer_logprobs(tiny_vlm, RECORDS, batch_size=1)
    batched, batched_counts = answer_logprobs(tiny_vlm, RECORDS, batch_size=3)
    np.testing.assert_allclose(batched, sums, rtol=1e-5)
    np.testing.assert_array_equal(batched_counts, counts)
    assert (sums < 0).all()


def test_logprobs_are_those_of_a_slow_loop(tiny_vlm):
    record = RECORDS[0]
    batch = encode(tiny_vlm, [record], answers=True, side="right")
    with torch.no_grad():
        logits = tiny_vlm.model(**batch.inputs()).logits[0]
    total, count = 0.0, 0
    for position, label in enumerate(batch.labels[0].tolist()):
        if label != -100:
            total += logits[position - 1].log_softmax(-1)[label].item()
            count += 1
    sums, counts = answer_logprobs(tiny_vlm, [record])
    assert sums[0] == pytest.approx(total, rel=1e-5)
    assert counts[0] == count


def test_progress_ends_at_the_number_of_records(tiny_vlm):
    steps = []
    generate_answers(
        tiny_vlm, RECORDS, batch_size=2, max_new_tokens=1, progress=lambda *step: steps.append(step)
    )
    # Three photos, then two questions without one.
    assert steps == [(2, 5), (3, 5), (5, 5)]


def test_no_records(tiny_vlm):
    assert generate_answers(tiny_vlm, []) == []
    sums, counts = answer_logprobs(tiny_vlm, [])
    assert sums.shape == counts.shape == (0,)


def test_batch_size_must_be_positive(tiny_vlm):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        generate_answers(tiny_vlm, RECORDS, batch_size=0)


def test_scores_are_those_right_before_answer_tokens(tiny_vlm):
    batch = encode(tiny_vlm, RECORDS, answers=True, side="right")
    logits, labels = answer_logits(tiny_vlm, batch)
    everything = tiny_vlm.model(**batch.inputs()).logits
    assert logits.shape[:2] == labels.shape
    assert logits.shape[1] < everything.shape[1] / 2
    found = [(row, t) for row, t in (labels[:, 1:] != -100).nonzero().tolist()]
    expected = [(row, t) for row, t in (batch.labels[:, 1:] != -100).nonzero().tolist()]
    assert len(found) == len(expected) > len(RECORDS)
    for (row, column), (same_row, position) in zip(found, expected, strict=True):
        assert row == same_row
        assert labels[row, column + 1] == batch.labels[row, position + 1]
        torch.testing.assert_close(logits[row, column], everything[row, position])


@pytest.mark.parametrize("loss", [cross_entropy, unlikelihood, sequence_logprob])
def test_losses_are_those_of_all_scores(tiny_vlm, loss):
    batch = encode(tiny_vlm, RECORDS, answers=True, side="right")
    name = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])[0]
    weight = tiny_vlm.model.get_parameter(name)
    gradients = []
    everything = tiny_vlm.model(**batch.inputs()).logits, batch.labels
    for given in (answer_logits(tiny_vlm, batch), everything):
        value = loss(*given).sum()
        gradients.append((value.detach(), *torch.autograd.grad(value, [weight])))
    torch.testing.assert_close(*gradients)


def test_rows_without_answers_score_nothing(tiny_vlm):
    batch = encode(tiny_vlm, RECORDS, answers=False, side="right")
    logits, labels = answer_logits(tiny_vlm, batch)
    assert (logits.shape[1], labels.tolist()) == (1, [[-100]] * len(RECORDS))
    assert not answer_token_logprobs(logits, labels)[1].any()


def test_repeated_tokens_are_those_a_plain_loop_would_say(tiny_vlm):
    found = answer_scores(tiny_vlm, RECORDS)
    assert [len(tokens) for tokens in found.repeated] == found.tokens.tolist()
    for record, tokens in zip(RECORDS, found.repeated, strict=True):
        batch = encode(tiny_vlm, [record], answers=True, side="right")
        with torch.inference_mode():
            logits = tiny_vlm.model(**batch.inputs(), use_cache=False).logits[0]
        said = [
            int(logits[place - 1].argmax() == label)
            for place, label in enumerate(batch.labels[0].tolist())
            if label != -100
        ]
        assert "".join(map(str, said)) == tokens
