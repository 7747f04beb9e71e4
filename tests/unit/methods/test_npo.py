import math

import pytest
import torch

from unsee.losses import sequence_logprob
from unsee.methods.npo import NPO


def logprobs(vlm, rows):
    """Log-probability of each answer, from the whole of the scores."""
    with torch.no_grad():
        logits = vlm.model(**rows.batch.inputs(), use_cache=False).logits
    return sequence_logprob(logits, rows.batch.labels).tolist()


@pytest.mark.parametrize(("beta", "retain_weight"), [(0.1, 1.0), (2.0, 0.5)])
def test_terms_are_those_of_the_formula(beta, retain_weight, midway):
    with midway(NPO, beta=beta, retain_weight=retain_weight) as at:
        terms = at.terms()
        now, before = (logprobs(vlm, at.batch.forget) for vlm in (at.vlm, at.start))
        keep = at.batch.keep.batch
        kept = at.vlm.model(**keep.inputs(), labels=keep.labels).loss.item()
    ratios = [a - b for a, b in zip(now, before, strict=True)]
    assert max(map(abs, ratios)) > 0.1
    expected = sum(2 / beta * math.log(1 + math.exp(beta * ratio)) for ratio in ratios) / 3
    assert set(terms) == {"dispreference", "answers"}
    assert terms["dispreference"] == pytest.approx(expected, rel=1e-4)
    assert terms["answers"] == pytest.approx(retain_weight * kept, rel=1e-4)


def test_without_a_retain_weight_only_the_forget_side_is_run(midway):
    with midway(NPO, retain_weight=0.0) as at:
        assert set(at.terms()) == {"dispreference"}
        assert "batch" not in vars(at.batch.keep)
