from dataclasses import replace

import numpy as np
import pytest
import torch

from unsee.answering import answer_logprobs
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Signals
from unsee.audit.detection import (
    detection_cell,
    detection_judgement,
    detection_power,
    with_reference,
)
from unsee.data.collate import encode
from unsee.losses import cross_entropy
from unsee.metrics.membership import Told, per_zlib_byte

Membership = ATTACKS.get("membership")


@pytest.fixture
def given(small_split):
    sides = {"forget_seen": small_split.forget, "forget_unseen": small_split.retain}
    return Given(replace(small_split, audit=sides))


def test_scores_are_those_of_the_answers(tiny_vlm, given):
    found = Membership().signals(tiny_vlm, given)
    assert found.member.tolist() == [True] * 8 + [False] * 8
    assert set(found.subjects[:8]) == {"Ada", "Bo"}
    everybody = [record for side in given.split.audit.values() for record in side]
    sums, counts = answer_logprobs(tiny_vlm, everybody)
    np.testing.assert_allclose(sorted(found.scores["loss"]), sorted(sums / counts), rtol=1e-4)
    packed = [
        per_zlib_byte(s / n, r.answer) for s, n, r in zip(sums, counts, everybody, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(sorted(found.scores["zlib"]), sorted(packed), rtol=1e-4)
    # The least probable tokens are no more probable than the mean of all.
    assert (found.scores["min_k"] <= found.scores["loss"] + 1e-6).all()


def test_gradients_are_those_of_the_parts_named(tiny_vlm, given):
    one = replace(given, split=replace(given.split, audit={
        name: records[:1] for name, records in given.split.audit.items()
    }))  # fmt: skip
    found = Membership(parts=("projector",)).signals(tiny_vlm, one)
    record = one.split.audit["forget_seen"][0]
    batch = encode(tiny_vlm, [record], answers=True, side="right")
    logits = tiny_vlm.model(**batch.inputs()).logits
    cross_entropy(logits, batch.labels).backward()
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])
    own = dict(tiny_vlm.model.named_parameters())
    norm = torch.cat([own[name].grad.flatten() for name in names]).norm()
    assert found.scores["gradient_norm"][0] == pytest.approx(-norm.item(), rel=1e-4)


def test_pairs_are_drawn_alike_for_every_model_and_missing_ones_said(tiny_vlm, given):
    few = Membership(pairs=3)
    found = few.signals(tiny_vlm, given)
    assert found.member.sum() == 3
    assert few.signals(tiny_vlm, given).subjects == found.subjects
    none = replace(given, split=replace(given.split, audit={"forget_seen": given.split.forget}))
    assert few.signals(tiny_vlm, none) == "there are no open questions on photos in forget_unseen"


def signals(apart):
    """Thirty pairs of six people a side; members are ahead by `apart` deviations."""
    rng = np.random.default_rng(0)
    member = np.arange(60) < 30
    people = tuple(f"p{n % 6}" for n in range(60))
    noise = rng.normal(size=60)
    return Signals(member, people, {"loss": noise + apart * member, "other": np.zeros(60)})


def test_the_loss_beside_golds_is_a_score_of_its_own():
    mine, gold = signals(2.0), signals(0.0)
    found = with_reference(mine, gold)
    assert set(found.scores) == {"loss", "other", "reference"}
    np.testing.assert_allclose(found.scores["reference"], 2.0 * mine.member)
    assert not with_reference(gold, gold).scores["reference"].any()
    assert with_reference(mine, None) is mine
    assert with_reference(mine, "why not") is mine


def test_cell_and_judgement():
    cell = detection_cell(signals(9.0), Membership(), {"pairs": 30}, seed=0)
    assert cell["value"] == cell["tries"]["loss"] == 1.0
    assert cell["tries"]["other"] == 0.5
    assert cell["beside"]["tpr_at_1%_fpr"] == {"loss": 1.0, "other": 0.0}
    assert (cell["n"], cell["budget"]["tries"]) == (60, 2)
    found = {"base": signals(9.0), "gold": signals(0.0), "control": signals(9.0)}
    said = detection_judgement(signals(9.0), found, 0)
    assert said["above_gold"]["value"] > 0.3
    low, high = said["above_gold"]["ci"]
    assert 0.2 < low <= high <= 0.5
    assert said["power"] is True
    same = detection_judgement(signals(0.0), found, 0)
    assert same["above_gold"] == {"value": 0.0, "ci": [0.0, 0.0]}
    alone = detection_judgement(signals(0.0), {"base": signals(9.0)}, 0)
    assert alone["above_gold"] == {"not_scored": "there is no gold model"}
    assert (alone["power"], alone["power_why"]) == (None, "no model that never knew")


def told(value):
    return Told(value, value, value, np.full(3, value))


def test_power_by_hand():
    assert detection_power(told(0.9), told(0.5), None) == (None, "no control")
    # 0.6 - 0.5 is an advantage of 20 points, just enough.
    assert detection_power(told(0.6), told(0.5), told(0.6))[0] is True
    for base, control, what in (
        (0.59, 0.9, "the model before"),
        (0.9, 0.59, "a control that merely hides"),
    ):
        power, why = detection_power(told(base), told(0.5), told(control))
        assert power is False
        assert why == (
            f"of {what} it tells 18 points more (2 AUC - 1) than of a model that never knew, and "
            "20 are needed"
        )
