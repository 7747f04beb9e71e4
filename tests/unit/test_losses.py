import math
from functools import partial

import pytest
import torch

from unsee.losses import (
    DISTANCES,
    answer_margin,
    answer_probability,
    answer_token_logprobs,
    answer_token_zscores,
    cka_distance,
    cosine_distance,
    cross_entropy,
    gradient_ascent,
    hinge_away,
    kl_to_reference,
    mean_squared_distance,
    mean_squared_states,
    negative_entropy,
    npo,
    out_of_extremes,
    representation_deviation,
    sequence_logprob,
    undial,
    unlikelihood,
)

IGNORED = -100
# Row 0 answers with tokens 2 and 0, row 1 with token 3; scores at a position are for the next one.
LABELS = torch.tensor([[IGNORED, 2, 0], [IGNORED, IGNORED, 3]])
CHANCES = torch.tensor(
    [
        [[0.1, 0.2, 0.5, 0.2], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]],
        [[0.4, 0.2, 0.2, 0.2], [0.125, 0.125, 0.25, 0.5], [0.1, 0.1, 0.1, 0.7]],
    ]
)
LOGITS = CHANCES.log()


def at_first(logits):
    """Scores of a reference that has nothing to do with those given."""
    return torch.randn(logits.shape, generator=torch.Generator().manual_seed(6))


ON_LOGITS = {
    "cross_entropy": cross_entropy,
    "gradient_ascent": gradient_ascent,
    "unlikelihood": unlikelihood,
    "answer_probability": answer_probability,
    "answer_margin": lambda logits, labels: answer_margin(logits, labels).sum(),
    "sequence_logprob": lambda logits, labels: sequence_logprob(logits, labels).sum(),
    "npo": lambda logits, labels: npo(
        sequence_logprob(logits, labels), torch.zeros(len(labels)), beta=0.3
    ),
    "kl_to_reference": lambda logits, labels: kl_to_reference(logits, labels, at_first(logits)),
    "undial": lambda logits, labels: undial(logits, labels, at_first(logits), beta=2.0),
    "mean_squared_states": lambda states, labels: mean_squared_states(
        states, labels, at_first(states)
    ),
}
on_logits = pytest.mark.parametrize("loss", ON_LOGITS.values(), ids=ON_LOGITS)
on_features = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)


@pytest.fixture
def drawn():
    """Random scores of 4 answers with 0, 1, 3 and 6 scored tokens, one of them the first."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 7, 5, generator=generator)
    labels = torch.randint(5, (4, 7), generator=generator)
    for row, first in enumerate([7, 6, 4, 0]):
        labels[row, :first] = IGNORED
    return logits, labels


@pytest.fixture
def features():
    """Random features of 3 images with 5 patches, and their targets."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 5, 4, generator=generator).unbind()


def slow_token_logprobs(logits, labels):
    """Row -> log-probabilities of its answer tokens, in plain Python."""
    rows = []
    for scores, answer in zip(logits.tolist(), labels.tolist(), strict=True):
        found = []
        for position in range(1, len(answer)):
            if answer[position] != IGNORED:
                before = scores[position - 1]
                total = math.log(sum(math.exp(score) for score in before))
                found.append(before[answer[position]] - total)
        rows.append(found)
    return rows


def test_token_logprobs_by_hand():
    logprob, scored = answer_token_logprobs(LOGITS, LABELS)
    assert scored.tolist() == [[True, True], [False, True]]
    expected = torch.tensor([[math.log(0.5), math.log(0.25)], [0, math.log(0.5)]])
    torch.testing.assert_close(logprob, expected)


def test_token_zscores_by_hand():
    """The published check: scores (2, 1, 0) have mean -0.8324 and deviation 0.6515."""
    logits = torch.tensor([[[2.0, 1.0, 0.0]] * 2] * 3)
    labels = torch.tensor([[IGNORED, token] for token in range(3)])
    expected = torch.tensor([[0.652], [-0.883], [-2.418]])
    torch.testing.assert_close(answer_token_zscores(logits, labels), expected, atol=1e-3, rtol=0)


def test_token_zscores_as_a_slow_loop():
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([[IGNORED, 3, 1, IGNORED], [IGNORED, IGNORED, IGNORED, 4]])
    found = answer_token_zscores(logits, labels)
    for row in range(2):
        for column in range(3):
            token = int(labels[row, column + 1])
            if token == IGNORED:
                assert found[row, column] == 0
                continue
            p = logits[row, column].softmax(0).tolist()
            mean = sum(x * math.log(x) for x in p)
            deviation = math.sqrt(sum(x * (math.log(x) - mean) ** 2 for x in p))
            z = (math.log(p[token]) - mean) / deviation
            assert found[row, column].item() == pytest.approx(z, rel=1e-4)


def test_token_zscores_where_a_model_is_sure_or_holds_all_alike():
    labels = torch.tensor([[IGNORED, 0]])
    alike = answer_token_zscores(torch.zeros(1, 2, 4), labels)
    assert alike.item() == 0
    sure = torch.tensor([[[0.0, -torch.inf, -torch.inf]] * 2])
    assert answer_token_zscores(sure, labels).item() == 0
    nearly = answer_token_zscores(torch.tensor([[[20.0, 0.0, 0.0]] * 2]), labels)
    assert nearly.isfinite().all()
    assert nearly.item() >= 0


def test_losses_on_answers_by_hand():
    ln2 = math.log(2)
    assert cross_entropy(LOGITS, LABELS).item() == pytest.approx(4 * ln2 / 3)
    assert gradient_ascent(LOGITS, LABELS).item() == pytest.approx(-4 * ln2 / 3)
    assert sequence_logprob(LOGITS, LABELS).tolist() == pytest.approx([-3 * ln2, -ln2])
    # Answers with probability 1/8 and 1/2.
    expected = -(math.log(7 / 8) + math.log(1 / 2)) / 2
    assert unlikelihood(LOGITS, LABELS).item() == pytest.approx(expected)


def test_the_probability_of_answers_by_hand():
    # Of two tokens with 1/2 and 1/4, and of one with 1/2.
    assert answer_probability(LOGITS, LABELS).item() == pytest.approx((math.sqrt(1 / 8) + 0.5) / 2)


def test_the_probability_of_answers_as_a_slow_loop(drawn):
    answers = [math.exp(sum(row) / len(row)) for row in slow_token_logprobs(*drawn) if row]
    expected = sum(answers) / len(answers)
    assert answer_probability(*drawn).item() == pytest.approx(expected, rel=1e-5)


def test_fact_erasure_stops_pushing_once_an_answer_is_gone():
    gone = torch.zeros(2, 3, 4)
    gone[0, 0, 2] = gone[0, 1, 0] = gone[1, 1, 3] = -1000
    gone.requires_grad_(True)
    value = answer_probability(gone, LABELS)
    value.backward()
    assert value == 0
    assert gone.grad is not None
    assert not gone.grad.any()
    assert answer_probability(-gone.detach(), LABELS) == 1


def test_what_reaches_into_the_extremes_by_hand():
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.25, 0.05], [0.1, 0.2, 0.3, 0.4]])
    # Above 0.2, the second of the others; below 0.3, the second from below; and neither, among
    # the first and the last alone.
    both = out_of_extremes(chances.log()[:2], torch.tensor([3, 3]), count=2)
    assert both.item() == pytest.approx((0.4 - 0.2 + 0.3 - 0.05) / 2)
    assert out_of_extremes(chances.log()[2:], torch.tensor([1]), count=1) == 0
    assert out_of_extremes(chances.log()[2:], torch.tensor([1]), count=2).item() > 0


def test_a_token_is_left_alone_once_as_many_others_are_above_it():
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    for count, expected in ((2, True), (3, False)):
        value = out_of_extremes(scores, torch.tensor([2]), count=count)
        assert (value == 0) == expected


def slow_extremes(scores, token, count):
    total = sum(math.exp(score) for score in scores)
    chances = [math.exp(score) / total for score in scores]
    others = sorted(p for number, p in enumerate(chances) if number != token)
    own = chances[token]
    return max(0.0, own - others[-count]) + max(0.0, others[count - 1] - own)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_extremes_and_entropy_as_a_slow_loop(count):
    scores = 2 * torch.randn(7, 9, generator=torch.Generator().manual_seed(4))
    tokens = torch.arange(7)
    pairs = list(zip(scores.tolist(), tokens.tolist(), strict=True))
    expected = sum(slow_extremes(*pair, count) for pair in pairs) / 7
    found = out_of_extremes(scores, tokens, count=count)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    entropy = 0.0
    for row, _ in pairs:
        total = sum(math.exp(score) for score in row)
        entropy -= sum(math.exp(s) / total * math.log(math.exp(s) / total) for s in row)
    assert negative_entropy(scores).item() == pytest.approx(-entropy / 7, rel=1e-5)


def test_entropy_by_hand_and_at_its_ends():
    half = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]).log()
    assert negative_entropy(half).item() == pytest.approx(-(1 + 1.5) / 2 * math.log(2))
    assert negative_entropy(torch.zeros(3, 8)).item() == pytest.approx(-math.log(8))
    sure = torch.tensor([[0.0, -torch.inf, -torch.inf]]).requires_grad_(True)
    value = negative_entropy(sure)
    value.backward()
    assert value == 0
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_no_token_is_in_no_extreme_and_has_no_entropy():
    none = torch.zeros(0, 5, requires_grad=True)
    assert out_of_extremes(none, torch.zeros(0, dtype=torch.long), count=2) == 0
    assert negative_entropy(none) == 0


def test_losses_on_answers_as_a_slow_loop(drawn):
    rows = slow_token_logprobs(*drawn)
    tokens = [logprob for row in rows for logprob in row]
    mean = sum(tokens) / len(tokens)
    assert cross_entropy(*drawn).item() == pytest.approx(-mean, rel=1e-5)
    assert gradient_ascent(*drawn).item() == pytest.approx(mean, rel=1e-5)
    assert sequence_logprob(*drawn).tolist() == pytest.approx([sum(r) for r in rows], rel=1e-5)
    refused = [math.log(1 - math.exp(sum(row))) for row in rows if row]
    expected = -sum(refused) / len(refused)
    # The logarithm of a number near 1: float32 knows it in absolute terms only.
    assert unlikelihood(*drawn).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_cross_entropy_is_that_of_torch_on_shifted_labels(drawn):
    logits, labels = drawn
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


@on_logits
def test_only_the_position_before_an_answer_token_is_pushed(loss, drawn):
    logits, labels = drawn
    logits.requires_grad_(True)
    loss(logits, labels).backward()
    assert logits.grad is not None
    pushed = logits.grad.abs().sum(-1) > 0
    expected = torch.zeros_like(pushed)
    expected[:, :-1] = labels[:, 1:] != IGNORED
    assert torch.equal(pushed, expected)


@on_logits
def test_masked_positions_count_for_nothing(loss, drawn):
    logits, labels = drawn
    wild = logits.clone()
    for row, position in (labels[:, 1:] == IGNORED).nonzero().tolist():
        wild[row, position] = 50 * torch.randn(5)
    wild[:, -1] = 50
    assert torch.equal(loss(wild, labels), loss(logits, labels))


@on_logits
def test_nothing_to_score_gives_a_constant_and_no_nan(loss, drawn):
    logits = drawn[0].requires_grad_(True)
    value = loss(logits, torch.full((4, 7), IGNORED))
    value.backward()
    assert value.isfinite()
    assert logits.grad is None or not logits.grad.any()


def test_cross_entropy_of_sure_answers_and_of_a_uniform_model():
    sure = torch.full((2, 3, 4), -1e4)
    sure[0, 0, 2] = sure[0, 1, 0] = sure[1, 1, 3] = 1e4
    assert cross_entropy(sure, LABELS) == 0
    assert gradient_ascent(sure, LABELS) == 0
    assert cross_entropy(torch.zeros(2, 3, 4), LABELS).item() == pytest.approx(math.log(4))


def test_gradient_ascent_falls_without_bound_where_unlikelihood_stops():
    gone = torch.zeros(2, 3, 4)
    gone[0, 0, 2] = gone[0, 1, 0] = gone[1, 1, 3] = -1000
    gone.requires_grad_(True)
    assert gradient_ascent(gone, LABELS) < -900
    value = unlikelihood(gone, LABELS)
    value.backward()
    assert value == 0
    assert gone.grad is not None
    assert not gone.grad.any()


@pytest.mark.parametrize("margin", [5.0, 14.0, 17.0, 100.0, 1e4])
def test_unlikelihood_pushes_a_sure_answer_with_bounded_strength(margin):
    # Where all else is equal, the gradient with respect to the answer's score is p.
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 1] = margin
    logits.requires_grad_(True)
    value = unlikelihood(logits, torch.tensor([[IGNORED, 1]]))
    value.backward()
    odds = margin - math.log(3)
    assert value.item() == pytest.approx(odds + math.log1p(math.exp(-odds)), rel=1e-5)
    assert logits.grad is not None
    p = 1 / (1 + 3 * math.exp(-margin))
    assert logits.grad[0, 0].tolist() == pytest.approx([-p / 3, p, -p / 3, -p / 3], abs=1e-5)


def test_answer_margin_by_hand():
    # 0.5 against 0.2 and 0.25 against 0.25; 0.5 against 0.25.
    expected = [math.log(2.5) / 2, math.log(2)]
    assert answer_margin(LOGITS, LABELS).tolist() == pytest.approx(expected, abs=1e-6)


def test_answer_margin_is_above_0_where_the_answer_leads_and_below_where_another_does():
    led = torch.zeros(1, 2, 4)
    led[0, 0, 2] = 3
    for answer, margin in ((2, 3.0), (1, -3.0)):
        labels = torch.tensor([[IGNORED, answer]])
        assert answer_margin(led, labels).tolist() == [margin]
        # What is added to all scores is added to none.
        assert answer_margin(led + 7, labels).tolist() == [margin]


def test_answer_margin_as_a_slow_loop(drawn):
    logits, labels = drawn
    expected = []
    for scores, answer in zip(logits.tolist(), labels.tolist(), strict=True):
        margins = []
        for position in range(1, len(answer)):
            if answer[position] != IGNORED:
                row = scores[position - 1]
                others = [score for token, score in enumerate(row) if token != answer[position]]
                margins.append(row[answer[position]] - max(others))
        expected.append(sum(margins) / max(1, len(margins)))
    assert answer_margin(logits, labels).tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] == 0


def test_npo_by_hand():
    value = npo(torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -3.0]), beta=0.5)
    expected = (4 * math.log(1 + math.exp(-0.5)) + 4 * math.log(1 + math.exp(1))) / 2
    assert value.item() == pytest.approx(expected)


def test_npo_as_a_slow_loop():
    generator = torch.Generator().manual_seed(3)
    now, before = (-5 * torch.rand(2, 6, generator=generator)).unbind()
    for beta in (0.1, 1.0, 4.0):
        total = 0.0
        for new, old in zip(now.tolist(), before.tolist(), strict=True):
            total += 2 / beta * math.log(1 + (math.exp(new) / math.exp(old)) ** beta)
        assert npo(now, before, beta=beta).item() == pytest.approx(total / 6, rel=1e-5)


def test_npo_at_the_reference_and_when_forgotten():
    reference = torch.tensor([-3.0, -20.0])
    for beta in (0.1, 0.5, 2.0):
        same = npo(reference, reference, beta=beta)
        assert same.item() == pytest.approx(2 * math.log(2) / beta)
        assert npo(reference - 1e4, reference, beta=beta) == 0


def test_npo_with_a_small_beta_pushes_like_gradient_ascent():
    logprob = torch.tensor([-2.0, -9.0], requires_grad=True)
    npo(logprob, torch.tensor([-5.0, -1.0]), beta=1e-5).backward()
    assert logprob.grad is not None
    # The gradient of the mean log-probability, which ascent on the loss lowers.
    assert logprob.grad.tolist() == pytest.approx([0.5, 0.5], rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_npo_refuses_a_beta_that_is_not_positive(beta):
    with pytest.raises(ValueError, match=f"beta must be positive, got {beta}"):
        npo(torch.zeros(1), torch.zeros(1), beta=beta)


def entropy(chances):
    return -sum(p * math.log(p) for p in chances)


def test_kl_to_reference_by_hand():
    uniform = torch.zeros(2, 3, 4)
    # KL(p || uniform) = ln 4 - H(p), at three positions, the second of them uniform itself.
    unsure = [entropy([0.1, 0.2, 0.5, 0.2]), math.log(4), entropy([0.125, 0.125, 0.25, 0.5])]
    expected = sum(math.log(4) - h for h in unsure) / 3
    assert kl_to_reference(uniform, LABELS, LOGITS).item() == pytest.approx(expected)
    # The other way round it is another number.
    expected = (-sum(math.log(4 * p) for p in (0.1, 0.2, 0.5, 0.2)) / 4 + math.log(2) / 4) / 3
    assert kl_to_reference(LOGITS, LABELS, uniform).item() == pytest.approx(expected)


def test_undial_by_hand():
    logits = torch.tensor([[[2.0, 1.0, 0.0], [9.0, 9.0, 9.0]]])
    labels = torch.tensor([[IGNORED, 0]])
    # softmax(-8, 1, 0) against softmax(2, 1, 0).
    assert undial(logits, labels, logits, beta=10.0).item() == pytest.approx(1.676433, abs=1e-6)


def test_mean_squared_states_by_hand():
    states = torch.zeros(2, 3, 2)
    states[0, 0] = torch.tensor([1.0, 2.0])
    states[1, 1] = torch.tensor([0.0, 3.0])
    target = torch.zeros(2, 3, 2)
    target[0, 1] = 2.0
    expected = ((1 + 4) + (4 + 4) + (0 + 9)) / 6
    assert mean_squared_states(states, LABELS, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.5, 3.0, 30.0])
def test_losses_beside_a_reference_as_slow_loops(beta, drawn):
    logits, labels = drawn
    reference = at_first(logits)
    divergence, distilled, squared, tokens = 0.0, 0.0, 0.0, 0
    for row in range(4):
        for position in range(1, 7):
            answer = int(labels[row, position])
            if answer == IGNORED:
                continue
            now, before = (it[row, position - 1].tolist() for it in (logits, reference))
            p, q = ([math.exp(s) / sum(map(math.exp, it)) for s in it] for it in (now, before))
            divergence += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
            before[answer] -= beta
            q = [math.exp(s) / sum(map(math.exp, before)) for s in before]
            distilled -= sum(b * math.log(a) for a, b in zip(p, q, strict=True))
            before[answer] += beta
            squared += sum((a - b) ** 2 for a, b in zip(now, before, strict=True)) / 5
            tokens += 1
    assert tokens == 10
    values = {
        kl_to_reference(logits, labels, reference): divergence,
        undial(logits, labels, reference, beta=beta): distilled,
        mean_squared_states(logits, labels, reference): squared,
    }
    for value, total in values.items():
        assert value.item() == pytest.approx(total / tokens, rel=1e-5)


def test_masked_positions_of_a_reference_count_for_nothing(drawn):
    logits, labels = drawn
    reference = at_first(logits)
    wild = reference.clone()
    wild[:, :-1][labels[:, 1:] == IGNORED] = 50
    wild[:, -1] = -50
    assert not torch.equal(wild, reference)
    for loss in (kl_to_reference, partial(undial, beta=2.0), mean_squared_states):
        assert torch.equal(loss(logits, labels, wild), loss(logits, labels, reference))


@pytest.mark.parametrize("loss", [kl_to_reference, mean_squared_states])
def test_what_is_held_is_at_rest_at_the_reference(loss, drawn):
    logits, labels = drawn
    moving = logits.clone().requires_grad_(True)
    value = loss(moving, labels, logits)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert moving.grad is not None
    assert moving.grad.abs().max() < 1e-6


def test_undial_without_lowering_holds_the_model_and_with_it_ends_where_others_share(drawn):
    logits, labels = drawn

    def pushed(moving, beta):
        moving = moving.clone().requires_grad_(True)
        value = undial(moving, labels, logits, beta=beta)
        value.backward()
        return value.item(), moving.grad.abs().max()

    held, gradient = pushed(logits, 0.0)
    assert gradient < 1e-6
    scored = labels[:, 1:] != IGNORED
    chances = logits[:, :-1][scored].softmax(-1).tolist()
    assert held == pytest.approx(sum(map(entropy, chances)) / 10, rel=1e-5)
    assert pushed(logits, 4.0)[1] > 0.01
    # Where the answer has lost its score and the rest is as it was, there is nothing left to do.
    done = logits.clone()
    for row, position in scored.nonzero().tolist():
        done[row, position, labels[row, position + 1]] -= 4.0
    assert pushed(done, 4.0)[1] < 1e-6


def test_cosine_distance_by_hand():
    one = torch.tensor([[[1.0, 0.0]] * 3, [[2.0, 0.0]] * 3])
    other = torch.tensor([[[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], [[3.0, 0.0]] * 3])
    assert cosine_distance(one, other).tolist() == pytest.approx([1, 0], abs=1e-6)


def test_mean_squared_distance_by_hand():
    one = torch.tensor([[[1.0, 1.0]], [[3.0, 4.0]]])
    other = torch.tensor([[[2.0, 0.0]], [[3.0, 4.0]]])
    assert mean_squared_distance(one, other).tolist() == pytest.approx([0.5, 0])
    # Relative to the target, not to the features.
    assert mean_squared_distance(other, one)[0].item() == pytest.approx(1)


def test_cka_distance_by_hand():
    # One feature a patch: CKA is the squared correlation over patches.
    one = torch.tensor([[[1.0], [-1.0], [0.0]]] * 3)
    other = torch.tensor([[[1.0], [0.0], [-1.0]], [[1.0], [1.0], [-2.0]], [[-3.0], [3.0], [0.0]]])
    assert cka_distance(one, other).tolist() == pytest.approx([0.75, 1, 0], abs=1e-6)


def slow_cosine(a, b):
    total = 0.0
    for u, v in zip(a, b, strict=True):
        dot = sum(x * y for x, y in zip(u, v, strict=True))
        total += 1 - dot / math.sqrt(sum(x * x for x in u) * sum(y * y for y in v))
    return total / len(a)


def slow_mean_squared(a, b):
    pairs = [(x, y) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True)]
    return sum((x - y) ** 2 for x, y in pairs) / sum(y * y for _, y in pairs)


def slow_cka(a, b):
    def gram(rows):
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        centred = [[x - m for x, m in zip(row, means, strict=True)] for row in rows]
        return [[sum(x * y for x, y in zip(u, v, strict=True)) for v in centred] for u in centred]

    def inner(k, m):
        return sum(k[i][j] * m[i][j] for i in range(len(k)) for j in range(len(k)))

    k, m = gram(a), gram(b)
    return 1 - inner(k, m) / math.sqrt(inner(k, k) * inner(m, m))


@pytest.mark.parametrize(
    ("name", "slow"), [("cosine", slow_cosine), ("mse", slow_mean_squared), ("cka", slow_cka)]
)
def test_distances_as_slow_loops(name, slow, features):
    found = DISTANCES[name](*features)
    pairs = zip(features[0].tolist(), features[1].tolist(), strict=True)
    assert found.tolist() == pytest.approx([slow(a, b) for a, b in pairs], rel=1e-5)


@on_features
def test_distance_is_zero_only_to_itself_and_each_image_counts_alone(distance, features):
    one, other = features
    assert distance(one, one).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    whole = distance(one, other)
    assert (whole > 0.05).all()
    mixed = torch.cat([one[:1], other[1:]])
    assert distance(mixed, other)[0] == pytest.approx(whole[0].item())


@on_features
def test_distance_to_features_without_contrast_has_a_gradient_without_nan(distance):
    flat = torch.zeros(1, 3, 2, requires_grad=True)
    value = distance(flat, torch.tensor([[[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]]])).sum()
    value.backward()
    assert value.isfinite()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_distances_are_blind_to_what_they_promise(features):
    one, other = features
    torch.testing.assert_close(cosine_distance(7 * one, other), cosine_distance(one, other))
    torch.testing.assert_close(
        mean_squared_distance(3 * one, 3 * other), mean_squared_distance(one, other)
    )
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(4)))[0]
    moved = 5 * one @ rotation + torch.tensor([1.0, -2.0, 3.0, 0.5])
    expected = cka_distance(one, other)
    torch.testing.assert_close(cka_distance(moved, other), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cka_distance(other, moved), expected, rtol=1e-4, atol=1e-5)
    order = [1, 2, 3, 4, 0]
    torch.testing.assert_close(cka_distance(one[:, order], other[:, order]), expected)
    assert not torch.allclose(cka_distance(one[:, order], other), expected, atol=1e-2)


def test_cka_distance_stays_between_0_and_1(features):
    for scale in (1e-3, 1.0, 1e3):
        found = cka_distance(scale * features[0], features[1])
        assert ((found >= -1e-6) & (found <= 1 + 1e-6)).all()


def test_hinge_by_hand_and_in_its_limits():
    distance = torch.tensor([0.1, 0.6, 0.5, 0.3])
    assert hinge_away(distance, 0.5).item() == pytest.approx((0.4 + 0.2) / 4)
    assert hinge_away(distance, 0.05) == 0
    assert hinge_away(distance, 10.0).item() == pytest.approx(10 - 1.5 / 4)


def test_hinge_as_a_slow_loop():
    distance = torch.rand(9, generator=torch.Generator().manual_seed(5))
    slow = sum(max(0.0, 0.4 - d) for d in distance.tolist()) / 9
    assert hinge_away(distance, 0.4).item() == pytest.approx(slow)


def test_hinge_stops_pushing_at_the_margin():
    distance = torch.tensor([0.1, 0.6], requires_grad=True)
    hinge_away(distance, 0.5).backward()
    assert distance.grad is not None
    assert distance.grad.tolist() == pytest.approx([-0.5, 0])


@pytest.fixture
def states():
    """Random states of 4 answers, as `drawn` scores them, and those they began as."""
    generator = torch.Generator().manual_seed(6)
    return torch.randn(2, 4, 7, 3, generator=generator).unbind()


def test_deviation_by_hand():
    labels = torch.tensor([[IGNORED, 1, 1, IGNORED]])
    # Cosines 0.6 and -1; what stands elsewhere is not read.
    now = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [9.0, 9.0], [1.0, 0.0]]])
    start = torch.tensor([[[1.0, 0.0], [0.0, 5.0], [1.0, 0.0], [0.0, 1.0]]])
    expected = (math.log(1 + math.exp(1.2)) + math.log(1 + math.exp(-2))) / 2
    found = representation_deviation(now, labels, start, temperature=0.5)
    assert found.item() == pytest.approx(expected)


def test_deviation_at_the_start_at_right_angles_and_opposite(drawn, states):
    labels, start = drawn[1], states[0]
    for temperature in (0.1, 1.0):
        at = [
            representation_deviation(now, labels, start, temperature=temperature).item()
            for now in (start, 3 * start, -start)
        ]
        assert at[0] == pytest.approx(math.log1p(math.exp(1 / temperature)), rel=1e-4)
        assert at[1] == pytest.approx(at[0], rel=1e-5)
        assert at[2] == pytest.approx(math.log1p(math.exp(-1 / temperature)), rel=1e-3)
    x, y = torch.eye(2)[:, None, None].expand(2, 4, 7, 2).unbind()
    found = representation_deviation(x, labels, y, temperature=0.3)
    assert found.item() == pytest.approx(math.log(2), rel=1e-5)


def test_deviation_as_a_slow_loop(drawn, states):
    now, start = states
    total, count = 0.0, 0
    for row, answer in enumerate(drawn[1].tolist()):
        for position in range(1, len(answer)):
            if answer[position] != IGNORED:
                a, b = now[row, position - 1].tolist(), start[row, position - 1].tolist()
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                sizes = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
                total, count = total + math.log1p(math.exp(dot / sizes / 0.4)), count + 1
    found = representation_deviation(now, drawn[1], start, temperature=0.4)
    assert found.item() == pytest.approx(total / count, rel=1e-5)


def test_deviation_of_masked_positions_counts_for_nothing(drawn, states):
    labels, (now, start) = drawn[1], states
    wild = now.clone()
    wild[:, :-1][labels[:, 1:] == IGNORED] = 50
    wild[:, -1] = 50
    found = representation_deviation(wild, labels, start, temperature=0.4)
    assert torch.equal(found, representation_deviation(now, labels, start, temperature=0.4))
    none = torch.full_like(labels, IGNORED)
    assert representation_deviation(now, none, start, temperature=0.4) == 0
