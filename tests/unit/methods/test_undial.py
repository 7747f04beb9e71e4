import pytest
import torch

from unsee.methods.undial import UNDIAL


def scores(vlm, rows):
    """Scores right before each answer token, (token, vocab)."""
    with torch.no_grad():
        logits = vlm.model(**rows.batch.inputs(), use_cache=False).logits
    return logits[:, :-1][rows.batch.labels[:, 1:] != -100]


@pytest.mark.parametrize(("beta", "retain_weight"), [(10.0, 1.0), (0.5, 0.2)])
def test_terms_are_those_of_the_formula(beta, retain_weight, midway):
    with midway(UNDIAL, beta=beta, retain_weight=retain_weight) as at:
        terms = at.terms()
        now, before = (scores(vlm, at.batch.forget) for vlm in (at.vlm, at.start))
        labels = at.batch.forget.batch.labels
        keep = at.batch.keep.batch
        kept = at.vlm.model(**keep.inputs(), labels=keep.labels).loss.item()
    for row, answer in enumerate(labels[labels != -100].tolist()):
        before[row, answer] -= beta
    expected = torch.nn.functional.cross_entropy(now, before.softmax(-1)).item()
    assert set(terms) == {"distillation", "answers"}
    assert terms["distillation"] == pytest.approx(expected, rel=1e-4)
    assert terms["answers"] == pytest.approx(retain_weight * kept, rel=1e-4)


def test_without_a_retain_weight_only_the_forget_side_is_run(midway):
    with midway(UNDIAL, retain_weight=0.0) as at:
        assert set(at.terms()) == {"distillation"}
        assert "batch" not in vars(at.batch.keep)
