import math

import pytest
import torch

from unsee.metrics.divergence import answer_kl, token_kl


def logs(*rows):
    return torch.tensor(rows, dtype=torch.float32).log()


def test_a_value_by_hand():
    # 1/2 ln(1/2 : 1/4) + 1/2 ln(1/2 : 3/4) = 1/2 ln 2 + 1/2 ln(2/3).
    found = token_kl(logs((0.5, 0.5)), logs((0.25, 0.75)))
    assert found.tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    # The other way round it is another number.
    back = token_kl(logs((0.25, 0.75)), logs((0.5, 0.5)))
    assert back.tolist() == pytest.approx([0.25 * math.log(0.5) + 0.75 * math.log(1.5)])


def test_a_certain_base_leaves_the_models_surprise():
    """With all of base on one word, KL is -log p of the model there: its cross-entropy."""
    model = torch.randn(6, 9).log_softmax(-1)
    words = torch.arange(6) % 9
    base = torch.full((6, 9), -torch.inf).scatter(1, words[:, None], 0.0)
    surprise = -model[torch.arange(6), words]
    torch.testing.assert_close(token_kl(base, model), surprise)
    assert answer_kl(model, model.clone()) == 0.0


def test_a_slow_loop_says_the_same():
    generator = torch.Generator().manual_seed(3)
    base, model = (torch.randn(5, 7, generator=generator).log_softmax(-1) for _ in range(2))
    slow = []
    for before, after in zip(base.tolist(), model.tolist(), strict=True):
        slow.append(sum(math.exp(b) * (b - a) for b, a in zip(before, after, strict=True)))
    assert token_kl(base, model).tolist() == pytest.approx(slow, rel=1e-5)
    assert answer_kl(base, model) == pytest.approx(sum(slow) / 5, rel=1e-5)


def test_edges():
    never = torch.tensor([[0.0, -torch.inf]])
    assert token_kl(never, never).tolist() == [0.0]
    assert token_kl(logs((0.5, 0.5)), never).tolist() == [torch.inf]
    # Rounding never makes it negative.
    same = torch.randn(50, 300).log_softmax(-1)
    assert (token_kl(same, same + 1e-3) == 0).all()
    with pytest.raises(ValueError, match="at least one token, got none"):
        answer_kl(never[:0], never[:0])
