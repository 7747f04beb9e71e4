"""Layers read as the last one is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unsee.data.collate import encode
from unsee.errors import LayoutError
from unsee.lens import answer_chances, answer_tokens, branches, lens, where_answers_part
from unsee.models.hooks import captured

ANSWERS = ("a green cat", "a red dog", "a blue bird", "a blue cat")


def test_the_last_layer_is_the_model_itself(tiny_vlm, small_split):
    path = tiny_vlm.layout.language_layer_paths(tiny_vlm.model)[-1]
    batch = encode(tiny_vlm, small_split.forget[:3], answers=False, side="left")
    with torch.no_grad(), captured(tiny_vlm.model, {"last": path}) as states:
        logits = tiny_vlm.model(**batch.inputs()).logits[:, -1]
        read = lens(tiny_vlm, states["last"][:, -1])
    torch.testing.assert_close(read, logits.log_softmax(-1))


def test_branches_by_hand():
    rows = [(1, 2, 9), (1, 3, 4, 9), (1, 3, 5, 9), (6, 9)]
    assert branches(rows) == {(): [1, 6], (1,): [2, 3], (1, 3): [4, 5]}
    # What begins like all of another one parts from it at its end.
    assert branches([(1, 9), (1, 2, 9)]) == {(1,): [2, 9]}
    assert branches([(1, 9), (1, 9)]) == {}


def test_where_answers_part_by_hand():
    """Rows are padded on either side; an end of sequence, 9, can tell an answer, too."""
    known = set(branches([(1, 2, 9), (1, 3, 4, 9), (1, 3, 9)]))
    labels = torch.tensor(
        [
            [-100, -100, 1, 3, 4, 9],
            [-100, 1, 3, 9, -100, -100],
            [-100, -100, -100, 1, 2, 9],
            [-100, 1, 3, 9, -100, -100],
            [-100, -100, -100, -100, -100, -100],
        ]
    )
    found = where_answers_part(labels, [known, known, known, set(), known])
    told = [labels[row, 1:][found[row]].tolist() for row in range(5)]
    # What nothing is known of is told by its first token, and what has no answer by none.
    assert told == [[3, 4], [3, 9], [2], [1], []]


def test_answers_part_where_they_are_written(tiny_vlm, small_split):
    record = next(r for r in small_split.forget if r.topic == "pet")
    rows = answer_tokens(tiny_vlm, record, ANSWERS)
    for answer, row in zip(ANSWERS, rows, strict=True):
        batch = encode(tiny_vlm, [replace(record, answer=answer)], answers=True, side="right")
        assert batch.labels[batch.labels != -100].tolist() == list(row)
        parted = where_answers_part(batch.labels, [set(branches(rows))])
        told = tiny_vlm.processor.tokenizer.decode(batch.labels[:, 1:][parted])
        # The article is common to all, and tells nothing.
        assert told.strip().startswith(answer.split()[1])


def test_chances_of_the_last_layer_are_those_of_the_answers(tiny_vlm, small_split):
    """With two answers that part at the first token alone, that token is all that counts."""
    records = [r for r in small_split.forget if r.topic == "pet"][:2]
    found = answer_chances(tiny_vlm, records, ("cat", "dog"))
    assert found.shape == (2, len(tiny_vlm.layout.language_layer_paths(tiny_vlm.model)), 2)
    batch = encode(tiny_vlm, records, answers=False, side="left")
    with torch.no_grad():
        chances = tiny_vlm.model(**batch.inputs()).logits[:, -1].softmax(-1)
    for number, answer in enumerate(("cat", "dog")):
        whole = encode(tiny_vlm, [replace(records[0], answer=answer)], answers=True, side="right")
        first = whole.labels[whole.labels != -100][0]
        assert found[:, -1, number] == pytest.approx(chances[:, first].numpy(), rel=1e-4)


def test_a_slow_loop_over_whole_answers_says_the_same(tiny_vlm, small_split):
    """log P(answer) less the tokens that all who got so far share, from the scores of answers."""
    record = next(r for r in small_split.forget if r.topic == "pet")
    found = np.log(answer_chances(tiny_vlm, [record], ANSWERS, batch_size=1)[0, -1])
    tails = {}
    for answer in ANSWERS:
        batch = encode(tiny_vlm, [replace(record, answer=answer)], answers=True, side="right")
        ids = batch.labels[0][batch.labels[0] != -100].tolist()
        with torch.no_grad():
            logp = tiny_vlm.model(**batch.inputs()).logits[0].log_softmax(-1)
        start = int((batch.labels[0] != -100).int().argmax())
        tails[answer] = [(tuple(ids[:n]), logp[start + n - 1, t].item()) for n, t in enumerate(ids)]
    for number, answer in enumerate(ANSWERS):
        expected = 0.0
        for shared, value in tails[answer]:
            after = {
                own[len(shared) + 1][0][-1] if len(own) > len(shared) + 1 else "end"
                for own in tails.values()
                if len(own) > len(shared) and own[len(shared)][0] == shared
            }
            expected += value if len(after) > 1 else 0.0
        assert found[number] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_it_does_not_depend_on_the_batch(tiny_vlm, small_split):
    records = [r for r in small_split.forget if r.topic == "pet"]
    together = answer_chances(tiny_vlm, records, ANSWERS)
    alone = answer_chances(tiny_vlm, records, ANSWERS, batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-6)


def test_a_family_without_the_norm_is_refused(tiny_vlm):
    layout = replace(tiny_vlm.layout, last_norm="nowhere")
    with pytest.raises(LayoutError, match=r"no last norm at 'model.language_model.nowhere'"):
        lens(replace(tiny_vlm, layout=layout), torch.zeros(1, 4))
