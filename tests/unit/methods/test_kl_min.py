import pytest
import torch

from unsee.methods.kl_min import KLMin


def chances(vlm, rows):
    """Log-probabilities right before each answer token, (token, vocab)."""
    with torch.no_grad():
        logits = vlm.model(**rows.batch.inputs(), use_cache=False).logits
    return logits[:, :-1][rows.batch.labels[:, 1:] != -100].log_softmax(-1)


@pytest.mark.parametrize("retain_weight", [1.0, 0.3])
def test_terms_are_those_of_the_formula(retain_weight, midway):
    with midway(KLMin, retain_weight=retain_weight) as at:
        terms = at.terms()
        now, before = (chances(vlm, at.batch.keep) for vlm in (at.vlm, at.start))
        forget = at.batch.forget.batch
        loss = at.vlm.model(**forget.inputs(), labels=forget.labels).loss.item()
    divergence = (before.exp() * (before - now)).sum(-1).mean().item()
    assert divergence > 0.01
    assert set(terms) == {"ascent", "divergence"}
    assert terms["ascent"] == pytest.approx(-loss, rel=1e-4)
    assert terms["divergence"] == pytest.approx(retain_weight * divergence, rel=1e-4)


def test_without_a_retain_weight_only_the_forget_side_is_run(midway):
    with midway(KLMin, retain_weight=0.0) as at:
        assert set(at.terms()) == {"ascent"}
        assert "batch" not in vars(at.batch.keep)
