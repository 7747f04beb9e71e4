"""How far one model's next-token distributions lie from another's."""

import torch
from jaxtyping import Float
from torch import Tensor

KL_TO_BASE = "kl_to_base"


def token_kl(
    base: Float[Tensor, "token vocab"], model: Float[Tensor, "token vocab"]
) -> Float[Tensor, " token"]:
    """KL(base || model) of the next token, sum_v p_base(v) [log p_base(v) - log p_model(v)].

    Base comes first: what it held probable and the model no longer does is what counts. Kullback
    and Leibler 1951, https://doi.org/10.1214/aoms/1177729694.

    Args:
        base: Log-probabilities of the whole vocabulary before, nats.
        model: The same after.

    Returns:
        Nats, at least 0; 0 where both say the same; without end where the model rules out what base
        does not.
    """
    # What cannot come adds nothing, though its log-probability has no end.
    lost = torch.where(base.isneginf(), 0.0, base.exp() * (base - model))
    return lost.sum(-1).clamp(min=0)


def answer_kl(base: Float[Tensor, "token vocab"], model: Float[Tensor, "token vocab"]) -> float:
    """Mean of `token_kl` over the tokens of one answer, nats a token.

    Raises:
        ValueError: If there are no tokens.
    """
    if not len(base):
        raise ValueError("expected at least one token, got none")
    return float(token_kl(base, model).double().mean())
