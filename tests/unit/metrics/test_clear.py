import math

import numpy as np
import pytest
from scipy.stats import hmean

from unsee.metrics.clear import (
    FORGET_SETS,
    UTILITY_SETS,
    Row,
    forget_quality,
    model_utility,
    prompt,
    set_scores,
)


def row(right=0.6, wrong=(0.1, 0.3), reply="Ana Li", paraphrased=None):
    return Row(
        answer="Ana Li",
        reply=reply,
        right=math.log(right),
        paraphrased=math.log(paraphrased or right),
        wrong=tuple(map(math.log, wrong)),
    )


def test_by_hand():
    rows = [row(reply="Ana Roux"), row(reply="It is Ana Li.", wrong=(0.6,))]
    # R is the geometric mean of 0.1 and 0.3 over 0.6 in the one, and 1 in the other.
    ratio = math.sqrt(0.03) / 0.6
    retain = set_scores("retain", rows)
    assert retain == pytest.approx(
        {"rouge": 0.75, "probability": 0.6, "truth_ratio": (1 - ratio) / 2}
    )
    assert set_scores("forget", rows) == pytest.approx({**retain, "truth_ratio": (ratio + 1) / 2})
    faces = set_scores("real_faces", rows)
    assert faces["probability"] == pytest.approx((0.6 / 1.0 + 0.6 / 1.2) / 2)
    assert set_scores("forget_faces", rows)["probability"] == faces["probability"]


def test_the_ratio_is_each_row_s_own():
    """The published code takes one mean over the wrong answers of all rows."""
    low, high = row(right=0.5, wrong=(0.01,)), row(right=0.5, wrong=(0.5,))
    assert set_scores("retain", [low, high])["truth_ratio"] == pytest.approx(0.98 / 2)
    assert set_scores("retain", [low])["truth_ratio"] == pytest.approx(0.98)


def test_limits():
    sure, lost = row(right=1.0, wrong=(1e-12,)), row(right=1e-12, wrong=(1.0,))
    assert set_scores("retain", [sure])["truth_ratio"] == pytest.approx(1)
    assert set_scores("retain", [lost])["truth_ratio"] == 0
    assert set_scores("forget", [sure])["truth_ratio"] == pytest.approx(0, abs=1e-9)
    assert set_scores("forget", [lost])["truth_ratio"] == pytest.approx(0, abs=1e-9)
    even = row(right=0.2, wrong=(0.2, 0.2))
    assert set_scores("forget", [even])["truth_ratio"] == pytest.approx(1)
    nothing = Row("Ana Li", "", 0.0, 0.0, (-2000.0,))
    assert set_scores("forget", [nothing])["truth_ratio"] == 0


def test_the_paraphrase_counts_for_the_ratio_alone():
    rows = [row(right=0.6, paraphrased=0.3, wrong=(0.15,))]
    assert set_scores("retain", rows)["probability"] == pytest.approx(0.6)
    assert set_scores("retain", rows)["truth_ratio"] == pytest.approx(0.5)


def test_model_utility_is_the_harmonic_mean_of_twelve():
    rng = np.random.default_rng(0)
    names: list[str] = ["rouge", "probability", "truth_ratio"]
    scores = {name: dict(zip(names, rng.uniform(0.1, 1, 3), strict=True)) for name in UTILITY_SETS}
    twelve = [value for set_ in scores.values() for value in set_.values()]
    assert len(twelve) == 12
    assert model_utility(scores) == pytest.approx(hmean(twelve))
    forgotten = {name: dict.fromkeys(names, 0.0) for name in FORGET_SETS}
    assert model_utility(scores | forgotten) == model_utility(scores)
    assert model_utility(scores | {"retain": dict.fromkeys(names, 0.0)}) == 0
    del scores["retain_faces"]
    with pytest.raises(ValueError, match=r"missing: \['retain_faces'\]"):
        model_utility(scores)


def test_forget_quality():
    rng = np.random.default_rng(0)
    rows = [row(right=p, wrong=(0.2, 0.3)) for p in rng.uniform(0.1, 0.9, 40)]
    assert forget_quality(rows, rows) == 1
    known = [row(right=0.99, wrong=(0.001, 0.002))] * 40
    assert forget_quality(known, rows) < 1e-10


def test_what_is_no_set():
    with pytest.raises(ValueError, match=r"expected real_faces, .*, got 'retian'"):
        set_scores("retian", [row()])
    with pytest.raises(ValueError, match="forget: expected at least one row, got none"):
        set_scores("forget", [])


def test_prompts():
    assert prompt("retain") == prompt("forget") == "Describe the person in this photo."
    faces = ("real_faces", "retain_faces", "forget_faces")
    assert {prompt(name) for name in faces} == {"The name of the person on the image is "}
    assert prompt("real_world", "Which tower?") == "Which tower?"
