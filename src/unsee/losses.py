"""Losses and log-probabilities: pure functions of tensors."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORED_LABEL = -100


def answer_token_logprobs(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """Log-probability of each answer token given what stands before it.

    Args:
        logits: Scores of the next token at each position.
        labels: Answer tokens at their own positions, -100 elsewhere.

    Returns:
        Log-probabilities in nats, 0 where nothing is scored, and what is scored; both have
        seq - 1 columns, column t being the token at position t + 1.
    """
    targets = labels[:, 1:]
    scored = targets != IGNORED_LABEL
    picked = logits[:, :-1][scored].float().log_softmax(-1)
    logprob = torch.zeros(scored.shape, dtype=torch.float32, device=logits.device)
    # Out of place: autograd has to see the scatter.
    logprob = logprob.masked_scatter(scored, picked.gather(-1, targets[scored][:, None])[:, 0])
    return logprob, scored


def answer_token_zscores(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch tokens"]:
    """How far each answer token's log-probability lies above what the model expects there.

    z = (log p(y) - mu) / sigma, with mean and deviation of log p under p itself: Zhang et al. 2024,
    "Min-K%++", https://arxiv.org/abs/2404.02936, equation 3.

    Args:
        logits: Scores of the next token at each position.
        labels: Answer tokens at their own positions, -100 elsewhere.

    Returns:
        As `answer_token_logprobs`, in deviations; 0 where nothing is scored, or where the model
        holds all tokens to be alike.
    """
    targets = labels[:, 1:]
    scored = targets != IGNORED_LABEL
    logp = logits[:, :-1][scored].float().log_softmax(-1)
    p = logp.exp()
    # A token that cannot come adds nothing, though its log-probability has no end.
    finite = logp.where(p > 0, 0.0)
    mean = (p * finite).sum(-1)
    deviation = ((p * finite.square()).sum(-1) - mean.square()).clamp(min=0).sqrt()
    above = logp.gather(-1, targets[scored][:, None])[:, 0] - mean
    z = torch.where(deviation > 1e-6, above / deviation.clamp(min=1e-6), torch.zeros_like(above))
    return torch.zeros(scored.shape, dtype=torch.float32, device=logits.device).masked_scatter(
        scored, z
    )


def read_off(
    values: Float[Tensor, "batch seq width"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "token width"]:
    """What stands right before each answer token of a batch."""
    return values[:, :-1][labels[:, 1:] != IGNORED_LABEL].float()


def cross_entropy(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean negative log-probability over the answer tokens of a batch, in nats."""
    logprob, scored = answer_token_logprobs(logits, labels)
    return -logprob.sum() / scored.sum().clamp(min=1)


def sequence_logprob(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Log-probability of each answer, summed over its tokens, in nats."""
    return answer_token_logprobs(logits, labels)[0].sum(1)


def answer_margin(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """By how much an answer's tokens lead: each one's score less the best other one's, averaged.

    Returns:
        In nats; above 0 where the right token leads in the mean, 0 where none is scored.
    """
    targets = labels[:, 1:]
    scored = targets != IGNORED_LABEL
    picked = logits[:, :-1][scored].float()
    own = targets[scored][:, None]
    lead = picked.gather(-1, own)[:, 0] - picked.scatter(-1, own, -torch.inf).amax(-1)
    margins = torch.zeros(scored.shape, dtype=torch.float32, device=logits.device)
    return margins.masked_scatter(scored, lead).sum(1) / scored.sum(1).clamp(min=1)


def gradient_ascent(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """The negated cross-entropy; falls without bound as answers are forgotten.

    Jang et al. 2023, https://arxiv.org/abs/2210.01504.
    """
    return -cross_entropy(logits, labels)


def unlikelihood(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean of -log(1 - P) over answers: ascent that stops pushing once an answer is unlikely.

    Welleck et al. 2020, https://arxiv.org/abs/1908.04319, equation 4, on whole answers instead of
    tokens. A surname follows from the first name it is forced behind, whatever the photo shows:
    pushing each token down would destroy the features without ever succeeding.

    Returns:
        At least 0; 0 when no answer has any probability left, or none is scored.
    """
    logprob, scored = answer_token_logprobs(logits, labels)
    targets = labels[:, 1:]
    picked = logits[:, :-1][scored].float()
    # log(1 - p) from the scores of all other tokens: 1 - p itself rounds to 0 where an answer is
    # known best, and the gradient would be infinite, or none at all with p clamped.
    others = picked.scatter(-1, targets[scored][:, None], -torch.inf)
    rest = torch.full_like(logprob, -torch.inf)
    rest = rest.masked_scatter(scored, others.logsumexp(-1) - picked.logsumexp(-1))
    # 1 - p1 p2 ... = (1 - p1) + p1 (1 - p2) + ...
    answered = scored.any(1)
    terms = (rest + logprob.cumsum(1) - logprob)[answered]
    return -terms.logsumexp(1).sum() / answered.sum().clamp(min=1)


def answer_probability(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean over answers of their probability, the geometric mean of their tokens'.

    Fact erasure of Patil et al. 2023, https://arxiv.org/abs/2309.17410, in the authors' code:
    exp(-NLL(y | x)) with NLL the mean over tokens. An answer is pushed less, the less is left.

    Returns:
        0..1; 0 where nothing is scored.
    """
    logprob, scored = answer_token_logprobs(logits, labels)
    answered = scored.any(1)
    mean = logprob.sum(1)[answered] / scored.sum(1)[answered]
    return mean.exp().sum() / answered.sum().clamp(min=1)


def out_of_extremes(
    logits: Float[Tensor, "token vocab"], tokens: Int[Tensor, " token"], *, count: int
) -> Float[Tensor, ""]:
    """By how much tokens reach into the `count` most probable ones of all others, or the least.

    The mean over tokens y of max(0, p(y) - top) + max(0, bottom - p(y)), where top and bottom are
    the probabilities of the last of the others at either end: the head-projection defence of Patil
    et al. 2023, https://arxiv.org/abs/2309.17410. There y counts among those that are ranked, so
    that the loss ends one place earlier, within what a guess of `count` takes.

    Args:
        logits: Scores of the next token, at one layer.
        tokens: y.
        count: From 1 to vocab - 1.

    Returns:
        0..1; 0 where y is out of both ends, or there is none.
    """
    chances = logits.float().softmax(-1)
    own = chances.gather(-1, tokens[:, None])
    top, bottom = (
        chances.scatter(-1, tokens[:, None], worst).topk(count, largest=largest).values[:, -1:]
        for worst, largest in ((-torch.inf, True), (torch.inf, False))
    )
    return (F.relu(own - top) + F.relu(bottom - own)).sum() / max(1, len(tokens))


def negative_entropy(logits: Float[Tensor, "token vocab"]) -> Float[Tensor, ""]:
    """Mean of -H of the next token: lowest where all tokens are alike.

    The max-entropy defence of Patil et al. 2023, https://arxiv.org/abs/2309.17410.

    Returns:
        In nats, from -ln(vocab) to 0; 0 without any row.
    """
    logp = logits.float().log_softmax(-1)
    # A token that cannot come adds nothing, though its log-probability has no end.
    finite = logp.where(logp > -torch.inf, 0.0)
    return (logp.exp() * finite).sum() / max(1, len(logp))


def npo(
    logprob: Float[Tensor, " batch"], reference_logprob: Float[Tensor, " batch"], *, beta: float
) -> Float[Tensor, ""]:
    """Negative preference optimisation on the forget set.

    Zhang et al. 2024, https://arxiv.org/abs/2404.05868, equation 3.

    Args:
        logprob: Log-probability of each answer under the model in training (nats).
        reference_logprob: The same under the frozen starting model.
        beta: Inverse temperature, > 0; towards 0 the gradient becomes that of gradient ascent.

    Returns:
        2 ln 2 / beta at the reference, 0 in the limit of forgotten answers.

    Raises:
        ValueError: If `beta` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return -2 / beta * F.logsigmoid(-beta * (logprob - reference_logprob)).mean()


def kl_to_reference(
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    reference_logits: Float[Tensor, "batch seq vocab"],
) -> Float[Tensor, ""]:
    """Mean KL(reference || model) of the next token where answers are read off, in nats.

    Maini et al. 2024, https://arxiv.org/abs/2401.06121.

    Args:
        logits: Scores of the model in training.
        labels: Answer tokens at their own positions, -100 elsewhere.
        reference_logits: Scores of the frozen starting model on the same rows.

    Returns:
        At least 0; 0 where both say the same, or nothing is scored.
    """
    now = read_off(logits, labels).log_softmax(-1)
    before = read_off(reference_logits, labels).log_softmax(-1)
    return F.kl_div(now, before, reduction="sum", log_target=True) / max(1, len(now))


def undial(
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    reference_logits: Float[Tensor, "batch seq vocab"],
    *,
    beta: float,
) -> Float[Tensor, ""]:
    """Self-distillation from scores in which each answer token's own is lowered.

    Dong et al. 2025, https://arxiv.org/abs/2402.10052: the mean over answer tokens y of
    CE(softmax(reference - beta onehot(y)), softmax(logits)).

    Args:
        logits: Scores of the model in training.
        labels: Answer tokens at their own positions, -100 elsewhere.
        reference_logits: Scores of the frozen starting model on the same rows.
        beta: By how much an answer token is lowered, >= 0; at 0 the model is held as it was,
            towards infinity nothing is left to answers and the rest keeps its proportions.

    Returns:
        In nats, at least the entropy of what is distilled; 0 where nothing is scored.
    """
    targets = labels[:, 1:][labels[:, 1:] != IGNORED_LABEL][:, None]
    before = read_off(reference_logits, labels)
    lowered = before.scatter_add(-1, targets, before.new_full(targets.shape, -beta))
    now = read_off(logits, labels).log_softmax(-1)
    return -(lowered.softmax(-1) * now).sum() / max(1, len(now))


def mean_squared_states(
    states: Float[Tensor, "batch seq width"],
    labels: Int[Tensor, "batch seq"],
    target: Float[Tensor, "batch seq width"],
) -> Float[Tensor, ""]:
    """Mean squared difference of hidden states where answers are read off, over tokens and width.

    Both terms of Li et al. 2024, https://arxiv.org/abs/2403.03218.

    Args:
        states: After some layer of the model in training.
        labels: Answer tokens at their own positions, -100 elsewhere.
        target: Where the states should be.

    Returns:
        At least 0; 0 where states are at their target, or nothing is scored.
    """
    apart = read_off(states, labels) - read_off(target, labels)
    return apart.square().sum() / max(1, apart.numel())


def cosine_distance(
    features: Float[Tensor, "image patch width"], target: Float[Tensor, "image patch width"]
) -> Float[Tensor, " image"]:
    """1 - cosine similarity, averaged over patches; 0 to 2, blind to scale."""
    return (1 - F.cosine_similarity(features.float(), target.float(), dim=-1)).mean(-1)


def mean_squared_distance(
    features: Float[Tensor, "image patch width"], target: Float[Tensor, "image patch width"]
) -> Float[Tensor, " image"]:
    """Mean squared difference relative to the target's mean square; 0 when equal."""
    target = target.float()
    difference = (features.float() - target).square().mean((1, 2))
    return difference / target.square().mean((1, 2)).clamp(min=1e-12)


def cka_distance(
    features: Float[Tensor, "image patch width"], target: Float[Tensor, "image patch width"]
) -> Float[Tensor, " image"]:
    """1 - linear centred kernel alignment between the patches of two feature maps; 0 to 1.

    Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, equation 5 with linear kernels. Blind
    to rotations and scale of the feature space: only relations between patches count.
    """
    a = features.float() - features.float().mean(1, keepdim=True)
    b = target.float() - target.float().mean(1, keepdim=True)
    gram_a, gram_b = a @ a.mT, b @ b.mT
    cross = (gram_a * gram_b).sum((1, 2))
    # Bounded below the root: where all patches are alike its gradient would be infinite.
    norm_a, norm_b = (g.square().sum((1, 2)).clamp(min=1e-24).sqrt() for g in (gram_a, gram_b))
    return 1 - cross / (norm_a * norm_b)


Distance = Callable[[Tensor, Tensor], Tensor]


def _on_common_patches(distance: Distance) -> Distance:
    """Compares as many patches as both have: what is behind them repeats an image's first ones."""

    def compared(features: Tensor, target: Tensor) -> Tensor:
        patches = min(features.shape[1], target.shape[1])
        return distance(features[:, :patches], target[:, :patches])

    return compared


DISTANCES: dict[str, Distance] = {
    "cosine": _on_common_patches(cosine_distance),
    "mse": _on_common_patches(mean_squared_distance),
    "cka": _on_common_patches(cka_distance),
}


def hinge_away(distance: Float[Tensor, " image"], margin: float) -> Float[Tensor, ""]:
    """Pushes features away from the teacher's until `margin` is reached; 0 from there on."""
    return F.relu(margin - distance).mean()


def representation_deviation(
    states: Float[Tensor, "batch seq width"],
    labels: Int[Tensor, "batch seq"],
    start: Float[Tensor, "batch seq width"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Drives hidden states away from the direction they had, where answers are read off.

    The mean over answer tokens of softplus(cosine / temperature): our reading of the deviation of
    Fang et al. 2026, https://arxiv.org/abs/2602.19275, whose equations are not public to us. At the
    start itself the cosine is greatest and has no gradient.

    Args:
        states: After some layer of the model in training.
        labels: Answer tokens at their own positions, -100 elsewhere.
        start: The starting model's, on the same rows.
        temperature: > 0; towards 0 only states that still point the old way count.

    Returns:
        ln(1 + e^(1/temperature)) at the start, ln 2 at right angles; 0 where nothing is scored.
    """
    scored = labels[:, 1:] != IGNORED_LABEL
    now, before = (side[:, :-1][scored].float() for side in (states, start))
    cosine = F.cosine_similarity(now, before, dim=-1)
    return F.softplus(cosine / temperature).sum() / max(1, len(cosine))
