"""How far answers moved, with both models asked in turn."""

from contextlib import contextmanager

import pytest
import torch

from unsee.audit.drift import ANSWERS, compare, drift_cells, kept_answers, with_drift
from unsee.audit.scoring import Scored
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.replies import Replies


@pytest.fixture
def records(small_split):
    return [*small_split.forget[:5], Record("Jane", None, "Who is Jane Doe?", "a gardener")]


@contextmanager
def moved(vlm):
    """The head a little off while the block runs."""
    weight = vlm.model.get_output_embeddings().weight
    before = weight.detach().clone()
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weight += 0.1 * noise
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


def slow(vlm, record):
    """Mean over the answer's tokens, from all scores of a single row."""
    batch = encode(vlm, [record], answers=True, side="right")
    places = [t for t, label in enumerate(batch.labels[0].tolist()) if label != -100]

    def told():
        with torch.no_grad():
            scores = vlm.model(**batch.inputs()).logits[0].double().log_softmax(-1)
        return scores[[place - 1 for place in places]]

    before = told()
    with moved(vlm):
        after = told()
    return float((before.exp() * (before - after)).sum(-1).mean())


@pytest.mark.parametrize("held", [1, 10**9])
def test_models_in_turn_say_what_a_single_row_says(tiny_vlm, records, tmp_path, held):
    replies = Replies(tiny_vlm, name="erased", mark="x", path=tmp_path / "answers.jsonl")
    opened = []

    @contextmanager
    def turn():
        opened.append(1)
        with moved(tiny_vlm):
            yield

    compare(tiny_vlm, "base", turn, replies, [*records, records[0]], batch_size=2, held=held)
    # Two photos' worth of rows a batch at most, and text apart: as many turns as may be held.
    assert (len(opened) > 1) == (held == 1)
    found = replies.divergences(records, "base")
    assert found.tolist() == pytest.approx([slow(tiny_vlm, r) for r in records], rel=1e-3)
    assert (found > 0).all()

    def never():
        raise AssertionError("asked again")

    again = Replies(tiny_vlm, name="erased", mark="x", path=tmp_path / "answers.jsonl")
    compare(tiny_vlm, "base", never, again, records)
    assert (again.divergences(records, "base") == found).all()
    # Another base is another comparison.
    assert len(again.not_compared(records, "other")) == len(records)


def test_open_questions_of_sets_to_keep_alone():
    seen = [Record("Jane", None, "Who?", "Jane"), Record("Jane", None, "_", "x", form="cloze")]
    sets = {"forget_seen": seen, "forget_text": seen, "retain_seen": seen, "general": seen[1:]}
    assert kept_answers(sets, "visual") == {
        "forget_text": {0: seen[0]},
        "retain_seen": {0: seen[0]},
    }
    assert kept_answers(sets, "both") == {"retain_seen": {0: seen[0]}}


def test_long_sets_are_thinned_evenly():
    rows = [Record("Jane", None, f"Question {n}?", "yes") for n in range(4 * ANSWERS)]
    (found,) = kept_answers({"general": rows}, "visual").values()
    assert list(found) == list(range(0, 4 * ANSWERS, 4))
    assert all(record is rows[row] for row, record in found.items())


def test_cells_are_means_with_intervals_by_person(tiny_vlm):
    rows = [Record(who, None, f"Who is {who}?", who) for who in ("Ada", "Bo", "Cy", "Di")]
    rows.insert(1, Record("Ada", None, "_", "x", form="cloze"))
    replies = Replies(tiny_vlm, name="erased", path=None)
    kept = kept_answers({"general": rows}, "visual")
    replies.keep_divergences(list(kept["general"].values()), [0.0, 1.0, 2.0, 5.0], "base")
    found = with_drift(Scored({}, {}, {}, {"general": {}}), replies, "base", kept)
    assert found.samples["general"] == {"kl_to_base": {0: 0.0, 2: 1.0, 3: 2.0, 4: 5.0}}
    cell = drift_cells(found, {"general": rows}, seed=0)["general"]
    assert (cell["value"], cell["n"]) == (2.0, 4)
    assert 0.0 <= cell["ci"][0] < 2.0 < cell["ci"][1] <= 5.0
