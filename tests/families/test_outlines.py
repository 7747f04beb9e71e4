"""Every family can be cut down to its first layers, and scores where answers are read alone."""

import torch

from unsee.answering import answer_logits
from unsee.data.collate import encode
from unsee.losses import answer_token_logprobs
from unsee.models.load import outline


def test_a_slice_of_random_weights_runs(family, tiny_families, mixed_records):
    sliced = outline(tiny_families(family), depth=(2, 1), device="cpu")
    model, layout = sliced.model, sliced.layout
    whole = outline(tiny_families(family), device="meta")
    assert len(layout.language_layer_paths(model)) == 2
    blocks = len(layout.vision_block_paths(model))
    assert 1 <= blocks <= len(layout.vision_block_paths(whole.model))
    shown = [record for record in mixed_records if record.image is not None]
    batch = encode(sliced, shown, answers=True, side="right")
    with torch.no_grad():
        logits, _ = answer_logits(sliced, batch)
    assert logits.isfinite().all()


def test_scores_of_answers_are_those_of_the_whole_row(vlm, mixed_records):
    shown = [record for record in mixed_records if record.image is not None]
    batch = encode(vlm, shown, answers=True, side="right")
    with torch.no_grad():
        found, scored = answer_token_logprobs(*answer_logits(vlm, batch))
        whole = vlm.model(**batch.inputs(), use_cache=False).logits
        expected, asked = answer_token_logprobs(whole, batch.labels)
    torch.testing.assert_close(found.sum(1), expected.sum(1))
    assert scored.sum(1).tolist() == asked.sum(1).tolist()
