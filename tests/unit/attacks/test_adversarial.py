"""Photos fitted to what is known: within their budget, and never to what is asked for."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.attacks import ATTACKS, adversarial
from unsee.attacks.protocol import Given
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.models.load import load
from unsee.models.tiny import tiny_model

Pgd, Universal = ATTACKS.get("pgd"), ATTACKS.get("universal")
FEW = Pgd(iterations=4)
SHORT = Universal(iterations=4, step=8 / 255, batch=4, batches=2)


@pytest.fixture
def people(split, photo):
    """Bo is forgotten too, and known by the name alone."""
    bo = tuple(Record("Bo", photo(n), "Who is this?", "Bo Finch", topic="name") for n in (7, 8))
    return replace(split, forget=split.forget + bo, subjects=("Ada", "Bo"))


@pytest.fixture
def both(asked, photo):
    return [*asked, Record("Bo", photo(9), "Tell me the name.", "Bo Finch", topic="name")]


@pytest.fixture
def lessons(monkeypatch):
    """What photos are fitted to, as it is read."""
    seen = []
    whole = adversarial.Shown.of.__func__

    def of(cls, vlm, records):
        seen.append(list(records))
        return whole(cls, vlm, records)

    monkeypatch.setattr(adversarial.Shown, "of", classmethod(of))
    return seen


def nobody(records):
    raise AssertionError("the model was asked")


def run(vlm, attack, split, asked) -> Any:
    found = attack.tries(vlm, Given(split))
    assert not isinstance(found, str), found
    (one,) = found
    return one.ask(asked, nobody)


def pixels(vlm, record) -> Any:
    return encode(vlm, [record], answers=False, side="left").pixel_values


def levels(vlm, one, other):
    """Change of a photo in levels of 255."""
    deviation = torch.tensor(vlm.processor.image_processor.image_std)[:, None, None]
    return (pixels(vlm, one) - pixels(vlm, other)) * deviation * 255


def loss(vlm, records):
    with torch.no_grad():
        shown = adversarial.Shown.of(vlm, records)
        return float(shown.loss(vlm, shown.values))


def test_each_photo_is_fitted_to_the_other_fact_of_its_person(tiny_vlm, people, both, lessons):
    found = run(tiny_vlm, FEW, people, both)
    # Bo's one fact would be fitted to itself, and a question without a photo shows none.
    assert [r and (r.question, r.answer) for r in found] == [
        *((r.question, r.answer) for r in both[:2]),
        None,
        None,
    ]
    assert {(r.topic, r.question, r.image) for batch in lessons for r in batch} == {
        ("name", "Who is this?", both[0].image),
        ("pet", "What pet?", both[0].image),
    }
    assert found[0].image != found[1].image
    for record, own, fact in zip(found, both, ("pet", "name"), strict=False):
        known = next(r for r in people.forget if r.topic == fact and r.subject == "Ada")
        before, after = (
            loss(tiny_vlm, [replace(known, image=shown.image)]) for shown in (own, record)
        )
        assert after < before - 1e-3
        # Half a level is lost in rounding.
        assert 7 <= levels(tiny_vlm, record, own).abs().max() <= 8.51


def test_what_is_asked_plays_no_part(tiny_vlm, people, both):
    others = [replace(r, question="Well?", answer="nobody") for r in both]
    one, other = (run(tiny_vlm, FEW, people, records) for records in (both, others))
    assert [r and r.image for r in one] == [r and r.image for r in other]


def test_one_change_is_fitted_on_other_people(tiny_vlm, people, both, lessons):
    attack = SHORT.tries(tiny_vlm, Given(people))
    lessons.clear()
    found = attack[0].ask(both, nobody)
    assert [r is None for r in found] == [False, False, True, False]
    # Two batches of one half, then the photos that it is shown on; and the other way round.
    taught = [{r.subject for r in batch} for batch in lessons]
    first, second = taught[0], taught[3]
    assert taught == [first, first, second, second, second, first]
    assert first | second == {"Ada", "Bo"}
    # One photo, one change; within the budget of 12 levels.
    assert found[0].image == found[1].image
    for record, own in zip(found, both, strict=True):
        if record is not None:
            assert 11 <= levels(tiny_vlm, record, own).abs().max() <= 12.51


def test_the_change_is_the_same_on_every_photo(tiny_vlm, people, photo):
    grey = [Record("Bo", photo(n), "Who?", "Bo Finch", topic="name") for n in (11, 12)]
    found = run(tiny_vlm, SHORT, people, grey)
    one, other = (levels(tiny_vlm, r, own) for r, own in zip(found, grey, strict=True))
    inside = torch.ones_like(one, dtype=torch.bool)
    deviation = torch.tensor(tiny_vlm.processor.image_processor.image_std)[:, None, None]
    mean = torch.tensor(tiny_vlm.processor.image_processor.image_mean)[:, None, None]
    for record in grey:
        light = 255 * (pixels(tiny_vlm, record) * deviation + mean)
        inside &= (light > 13) & (light < 242)
    assert inside.float().mean() > 0.2
    assert (one - other)[inside].abs().max() <= 1.01


def test_what_they_cannot_be_run_on(tiny_vlm, people, photo):
    bo = replace(people, forget=tuple(r for r in people.forget if r.subject == "Bo"))
    assert FEW.tries(tiny_vlm, Given(bo)) == "nobody to forget has facts on two topics"
    assert SHORT.tries(tiny_vlm, Given(bo)) == (
        "there are no photos of two people, one to fit on and one to ask about"
    )
    for attack in (FEW, SHORT):
        assert attack.tries(tiny_vlm, Given(replace(people, forget=()))) == (
            "the method was given no photos"
        )


def test_flattened_patches_are_photos_too(tmp_path, people, both, photo):
    vlm = load(tiny_model("qwen2_5_vl", tmp_path / "qwen"), dtype="float32", device="cpu")
    found = run(vlm, FEW, people, both)
    known = [next(r for r in people.forget if r.topic == topic) for topic in ("pet", "name")]
    for record, own, fact in zip(found, both, known, strict=False):
        assert loss(vlm, [replace(fact, image=record.image)]) < loss(
            vlm, [replace(fact, image=own.image)]
        )
    moved = run(vlm, SHORT, people, both)
    assert moved[0].image not in (None, both[0].image)
    small = Record("Bo", photo(13, (140, 60)), "Who is this?", "Bo Finch", topic="name")
    # Of another size than the change.
    assert run(vlm, SHORT, people, [small]) == [None]
    several = replace(people, forget=(*people.forget, small))
    assert SHORT.tries(vlm, Given(several)) == (
        "photos come in several sizes, and no change fits all"
    )
