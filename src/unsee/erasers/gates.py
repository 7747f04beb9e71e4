"""When to steer: gates on the state of the last prompt token; pure functions of tensors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Thresholds beyond the scores at hand are read off this share of the highest of them.
TAIL = 0.1
# So many of a subject's own questions a gate should catch where it can.
CAUGHT = 0.75
_NEWTON_STEPS = 50
# A step in which nothing moves further is the last.
_STILL = 1e-8
# Keeps the bias defined where the loss is flat: all rows are told apart for certain.
_FLAT = 1e-12


def rank_one_gate(
    forget_gram: Float[Tensor, "width width"],
    forget_sum: Float[Tensor, " width"],
    retain_gram: Float[Tensor, "width width"],
    *,
    energy: float,
    ridge: float,
) -> Float[Tensor, " width"]:
    """The gate of MLLMEraser as published, without its d x d matrix.

    The released code solves, for row vectors h and P = Q Q^T with Q the directions in which the
    retain states have least energy,

        min_D  sum over forget rows |h P D - r|^2 + ridge |P D|^2,      h' = h - s h (P D)

    All rows have the same target r, so the solution is P D = w r with one vector

        w = Q (Q^T H_f^T H_f Q + ridge I)^-1 Q^T H_f^T 1,

    and h (P D) = (h . w) r: a scalar gate, near 1 on forget states. It has neither a bias nor a
    bound, and is only near 0 on retain states as far as these have no energy along Q.

    Args:
        forget_gram: H_f^T H_f, sum over forget states of their outer products.
        forget_sum: H_f^T 1, sum over forget states.
        retain_gram: H_r^T H_r.
        energy: Share of the width that is kept, the directions of least retain energy; 0..1. With
            so few retain states that more than this share has none at all, rounding decides which
            of it are kept.
        ridge: gamma, > 0; relative to sums, not means, over the forget states.

    Returns:
        w in float64.
    """
    width = len(forget_sum)
    kept = max(1, int(width * energy))
    _, directions = torch.linalg.eigh(retain_gram.double())  # ascending
    low = directions[:, :kept]
    gram = low.T @ forget_gram.double() @ low
    gram.diagonal().add_(ridge)
    return low @ torch.linalg.solve(gram, low.T @ forget_sum.double())


def unit_rms(states: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """States of root mean square 1, as a layer reads them behind its norm, but for its scale."""
    return states * states.square().mean(-1, keepdim=True).clamp_min(1e-12).rsqrt()


def logistic_gate(
    forget: Float[Tensor, "row width"],
    keep: Float[Tensor, "kept width"],
    weights: Float[Tensor, " kept"],
    *,
    ridge: float,
) -> tuple[Float[Tensor, " width"], Float[Tensor, ""]]:
    """Logistic regression with bias: forget against keep states, both sides of equal weight.

    Our repair of the published gate. States are standardised first, so that the penalty is the
    same in all directions and at all layers; Newton's method, in float64, on the weights or, where
    there are fewer rows than these, on the rows.

    Args:
        forget: States in which to fire.
        keep: States in which not to.
        weights: How much each keep state counts against the others.
        ridge: Of the squared weights on standardised states, > 0; the bias goes free.

    Returns:
        w and b of the score h . w + b, in nats: 0 where both sides are equally likely.
    """
    forget, keep, weights = forget.double(), keep.double(), weights.double()
    states = torch.cat([forget, keep])
    share = torch.cat(
        [torch.full((len(forget),), 0.5 / len(forget)).to(weights), 0.5 * weights / weights.sum()]
    )
    fires = torch.zeros_like(share)
    fires[: len(forget)] = 1
    mean = share @ states
    scale = (share @ (states - mean).square()).sqrt().clamp_min(1e-6)
    standard = (states - mean) / scale
    solve = _by_rows if len(standard) < standard.shape[1] else _by_width
    v, bias = solve(standard, share, fires, ridge)
    w = v / scale
    return w, bias - mean @ w


def _by_width(rows: Tensor, share: Tensor, fires: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Newton's method on v and b; a step solves width + 1 equations."""
    rows = torch.cat([rows, torch.ones_like(share)[:, None]], 1)
    penalty = torch.full_like(rows[0], ridge)
    penalty[-1] = 0
    found = torch.zeros_like(penalty)
    for _ in range(_NEWTON_STEPS):
        chance = (rows @ found).sigmoid()
        gradient = rows.T @ (share * (chance - fires)) + penalty * found
        curved = share * chance * (1 - chance)
        hessian = rows.T @ (rows * curved[:, None])
        hessian.diagonal().add_(penalty + _FLAT)
        step = torch.linalg.solve(hessian, gradient)
        found = found - step
        if step.abs().max() < _STILL:
            break
    return found[:-1], found[-1]


def _by_rows(rows: Tensor, share: Tensor, fires: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The same steps on a and b with v = Z^T a; a step solves as many equations as there are rows.

    The solution lies in the span of the rows, so K = Z Z^T says all there is to know of them. With
    the curvature S^2 of the loss, each step needs

        (ridge I + S^2 K)^-1 = (I - S (ridge I + S K S)^-1 S K) / ridge,

    where only a symmetric, positive definite matrix is inverted (Rasmussen & Williams 2006,
    Gaussian Processes for Machine Learning, section 3.4.3). The bias goes free and is eliminated.
    """
    gram = rows @ rows.T
    a, b = torch.zeros_like(share), torch.zeros_like(share[0])
    for _ in range(_NEWTON_STEPS):
        chance = (gram @ a + b).sigmoid()
        slope = share * (chance - fires)
        curved = share * chance * (1 - chance)
        root = curved.sqrt()
        inner = root[:, None] * gram * root
        inner.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(inner)
        sides = torch.stack([slope + ridge * a, curved], 1)
        within = torch.cholesky_solve(root[:, None] * (gram @ sides), factor)
        plain, along = ((sides - root[:, None] * within) / ridge).unbind(1)
        seen = gram @ curved
        shift = (seen @ plain - slope.sum()) / (curved.sum() - seen @ along + _FLAT)
        step = plain + shift * along
        a, b = a - step, b + shift
        if max((rows.T @ step).abs().max(), shift.abs()) < _STILL:
            break
    return rows.T @ a, b


def cross_fitted(
    forget: Float[Tensor, "row width"],
    keep: Float[Tensor, "kept width"],
    weights: Float[Tensor, " kept"],
    forget_folds: Int[Tensor, " row"],
    keep_folds: Int[Tensor, " kept"],
    *,
    ridge: float,
) -> tuple[
    Float[Tensor, " width"], Float[Tensor, ""], Float[Tensor, " row"], Float[Tensor, " kept"]
]:
    """A logistic gate on all states, and the scores of states by gates that had not seen them.

    Args:
        forget: As for `logistic_gate`, like the next two.
        keep: States in which not to fire.
        weights: How much each keep state counts.
        forget_folds: Of each forget state; one gate is fitted without each fold of both sides.
        keep_folds: Of each keep state, of the same numbers.
        ridge: As there.

    Returns:
        w, b, ascending scores of the forget states, and of the keep states. Where one fold is a
        whole side, nothing of that side is left out.
    """
    found = [torch.zeros(len(side), dtype=torch.float64) for side in (forget, keep)]
    for fold in torch.cat([forget_folds, keep_folds]).unique():
        mine, others = forget_folds == fold, keep_folds == fold
        seen = torch.ones_like(mine) if mine.all() else ~mine
        kept = torch.ones_like(others) if others.all() else ~others
        w, b = logistic_gate(forget[seen], keep[kept], weights[kept], ridge=ridge)
        found[0][mine] = forget[mine].double() @ w + b
        found[1][others] = keep[others].double() @ w + b
    w, b = logistic_gate(forget, keep, weights, ridge=ridge)
    return w, b, found[0].sort().values, found[1].sort().values


def threshold(scores: Float[Tensor, " kept"], false_fire: float) -> float:
    """The score above which a share of requests lies that should not fire.

    Within the scores at hand it is their quantile. Beyond the highest `TAIL` of them these are
    taken as the tail of a normal distribution (a line through them on normal quantiles), so that
    rates smaller than one in so many scores can be read off too. Heavier tails, such as the
    exponential one, fire more often than is asked for there.

    Args:
        scores: Of states that should not fire, ascending.
        false_fire: Share of such states that may fire, 0 < share < 1.
    """
    count = len(scores)
    tail = min(count, max(2, round(TAIL * count)))
    if false_fire * count >= tail:
        return float(torch.quantile(scores.double(), 1 - false_fire))
    high = scores[count - tail :].double().cpu()
    below = (torch.arange(count - tail, count, dtype=torch.float64) + 0.5) / count
    normal = torch.special.ndtri(below)
    apart = normal - normal.mean()
    slope = (apart @ high) / apart.square().sum().clamp_min(1e-12)
    wanted = -torch.special.ndtri(torch.tensor(false_fire, dtype=torch.float64))
    return max(float(high[0]), float(high.mean() + slope * (wanted - normal.mean())))


def ceiling(forget: Float[Tensor, " row"]) -> float:
    """The highest threshold for a gate whose false fire cannot be told: too few people are kept.

    The tail of a handful of people says nothing about others, and may lie beyond all that the
    subject's own states reach; the eraser would then do nothing. Here `CAUGHT` of these fire, yet
    none that the gate takes for more likely kept than not.

    Args:
        forget: Scores of the subject's states, none of which the gate had seen.
    """
    return max(0.0, float(torch.quantile(forget.double(), 1 - CAUGHT)))


def share_of_each(false_fire: float, subjects: int) -> float:
    """The rate of one gate when `subjects` independent ones together may fire at `false_fire`."""
    return 1 - (1 - false_fire) ** (1 / subjects)
