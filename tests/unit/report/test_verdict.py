import pytest

from unsee.report.verdict import RUNGS, limits


def cell(value, n=480, spread=0.01, chance=0.083):
    ci = [max(0.0, value - spread), min(1.0, value + spread)]
    return {"value": value, "ci": ci, "n": n, "chance": chance}


def rung(data, report_of):
    return report_of(data).verdict.rung


def put(data, model, set_name, value, metric="accuracy", **more):
    data["models"][model]["scores"][set_name][metric] = cell(value, **more)


def test_a_good_run_is_behaviourally_forgotten_and_never_more(sample, report_of):
    verdict = report_of(sample()).verdict
    assert verdict.rung == "behaviourally forgotten"
    assert any("98.1 % before" in sentence for sentence in verdict.because)
    assert any("inner layers: not run" in sentence for sentence in verdict.not_run)


def test_doing_nothing_is_not_forgotten(sample, report_of):
    data = sample()
    data["models"]["erased"] = data["models"]["base"]
    assert rung(data, report_of) == "not forgotten"
    del data["models"]["erased"]
    data["method"]["kind"] = "none"
    assert rung(data, report_of) == "not forgotten"


def test_one_leaking_set_is_enough(sample, report_of):
    data = sample()
    put(data, "erased", "forget_unseen", 0.14)
    verdict = report_of(data).verdict
    assert verdict.rung == "not forgotten"
    assert "12.4 % of what the model knew is left, more than 10 %" in verdict.because[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [({"n": 20}, "only 20 questions"), ({"n": 400, "spread": 0.2}, "too uncertain to say")],
)
def test_an_interval_too_wide_to_say_is_not_forgotten(more, said, sample, report_of):
    data = sample()
    put(data, "erased", "forget_unseen", 0.02, **more)
    verdict = report_of(data).verdict
    assert verdict.rung == "not forgotten"
    assert said in verdict.because[0]


def test_what_the_model_never_knew_is_not_measurable(sample, report_of):
    data = sample()
    for name in ("forget_seen", "forget_unseen"):
        put(data, "base", name, 0.2)
    verdict = report_of(data).verdict
    assert verdict.rung == "not measurable"
    assert "knew too little before" in verdict.because[0]


def test_without_anything_to_compare_with_nothing_is_measurable(sample, report_of):
    data = sample()
    del data["models"]["gold"]
    data["summary"]["reference"] = "none"
    assert rung(data, report_of) == "not measurable"


@pytest.mark.parametrize(
    ("strangers", "expected"),
    [(None, "suppressed"), (19, "suppressed"), (20, "behaviourally forgotten")],
)
def test_strangers_support_a_claim_on_photos_from_twenty_on(strangers, expected, sample, report_of):
    data = sample()
    del data["models"]["gold"]
    floor = {name: cell(0.02) for name in ("forget_seen", "forget_unseen")}
    data["summary"].update(reference="strangers", stranger_floor=floor)
    data["request"]["strangers"] = strangers
    assert rung(data, report_of) == expected


def test_strangers_say_nothing_about_text(sample, report_of):
    data = sample(scope="both")
    floor = {name: cell(0.02) for name in ("forget_seen", "forget_unseen")}
    data["summary"].update(reference="strangers", stranger_floor=floor)
    data["request"]["strangers"] = 40
    assert rung(data, report_of) == "suppressed"


def test_scope_both_needs_the_text_forgotten_too(sample, report_of):
    assert rung(sample(scope="both"), report_of) == "not forgotten"


def test_an_eraser_suppresses_at_most(sample, report_of):
    verdict = report_of(sample(kind="eraser")).verdict
    assert verdict.rung == "suppressed"
    assert "leaves its weights alone" in verdict.because[0]


@pytest.mark.parametrize(
    ("set_name", "metric", "value", "said"),
    [
        ("forget_unseen", "choice_accuracy", 0.7, "asked in another form"),
        ("forget_unseen", "wrong_name_rate", 0.4, "instead of saying that it does not know"),
        ("forget_visible", "accuracy", 0.4, "may be damage too"),
        ("general", "accuracy", 0.3, "may be damage too"),
    ],
)
def test_what_holds_a_clean_forget_gap_at_suppressed(
    set_name, metric, value, said, sample, report_of
):
    data = sample()
    put(data, "erased", set_name, value, metric)
    verdict = report_of(data).verdict
    assert verdict.rung == "suppressed"
    assert said in verdict.because[0]


def test_an_attack_without_power_counts_as_not_run(sample, report_of):
    data = sample()
    attacks = data["models"]["erased"]["attacks"]
    attacks["relearning"] = {"value": 0.1, "ci": [0, 0.2], "n": 40, "power": False}
    attacks["weights"] = {"not_scored": "bitsandbytes is missing"}
    attacks["images"] = {"value": 0.1, "ci": [0, 0.2], "n": 40, "power": True}
    beside = {"above_gold": {"value": 0.0, "ci": [0, 0.01]}}
    attacks["prompts"] = {"value": 0.1, "ci": [0, 0.2], "n": 40, "power": True, **beside}
    attacks["membership"] = {"value": 0.1, "ci": [0, 0.2], "n": 40, "power": None, **beside}
    lines = report_of(data).verdict.not_run
    assert any("few of the photos: no power on this model" in line for line in lines)
    assert any("not run, since bitsandbytes is missing" in line for line in lines)
    said = dict(line.removesuffix(".").split(": ", 1) for line in lines)
    assert said["Altered photos meant to draw the answers out"] == (
        "run, but not compared with a model that never knew"
    )
    assert said["Testing whether the photos were once trained on"] == (
        "run, but whether it would find here what is merely hidden was not tested"
    )
    assert not any("Trick questions" in line for line in lines)


def test_limits_begin_with_what_is_still_answered_by_name(sample, report_of):
    first = limits(report_of(sample()))[0]
    assert "Asked by name, the model still answers" in first
    assert "100 % of 88 questions" in first


def test_limits_say_so_when_names_were_not_asked(sample, report_of):
    data = sample()
    data["models"]["erased"]["scores"]["forget_text"] = {
        "accuracy": {"not_scored": "no text questions were given"}
    }
    assert "was not tested: no text questions were given." in limits(report_of(data))[0]


def test_every_computed_rung_is_on_the_ladder(sample, report_of):
    assert rung(sample(), report_of) in RUNGS
