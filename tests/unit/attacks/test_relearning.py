from dataclasses import replace

import pytest
import torch

from unsee.answering import answer_logprobs
from unsee.attacks import ATTACKS, attacks_named
from unsee.attacks.protocol import Given
from unsee.attacks.relearning import neighbours
from unsee.data.records import Record, Split

Relearning = ATTACKS.get("relearning")


def state(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def changed(vlm, before):
    return {n for n, t in vlm.model.state_dict().items() if not torch.equal(t, before[n])}


def below(vlm, names, parts):
    return set(names) <= set(vlm.layout.parameter_names(vlm.model, parts))


def test_what_is_taught_is_known_inside_the_block_and_gone_behind_it(tiny_vlm, small_split):
    """A model that never knew learns, as the attack is meant to teach it."""
    before = state(tiny_vlm)
    attack = ATTACKS.get("relearning_full")(shares=(1.0,), steps=12, lr=5e-3, batch=8)
    (one,) = attack.tries(tiny_vlm, Given(small_split))
    flags = [p.requires_grad for p in tiny_vlm.model.parameters()]
    never, _ = answer_logprobs(tiny_vlm, small_split.forget)
    with one.change(tiny_vlm):
        taught, _ = answer_logprobs(tiny_vlm, small_split.forget)
        assert (taught > never + 5).all()
    assert not changed(tiny_vlm, before)
    assert [p.requires_grad for p in tiny_vlm.model.parameters()] == flags
    with pytest.raises(KeyboardInterrupt), one.change(tiny_vlm):
        raise KeyboardInterrupt
    assert not changed(tiny_vlm, before)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("relearning", ["vision", "projector"]),
        ("relearning_lora", ["vision", "projector", "language"]),
        ("relearning_full", ["vision", "projector", "language", "head"]),
    ],
)
def test_the_parts_that_are_named_move_and_no_others(name, parts, tiny_vlm, small_split):
    before = state(tiny_vlm)
    attack = ATTACKS.get(name)(shares=(1.0,), steps=2)
    (one,) = attack.tries(tiny_vlm, Given(small_split))
    with one.change(tiny_vlm):
        moved = changed(tiny_vlm, before)
        assert below(tiny_vlm, moved, parts)
        for part in parts:
            assert moved & set(tiny_vlm.layout.parameter_names(tiny_vlm.model, [part])), part
        if name == "relearning_lora":
            assert all(n.endswith(".weight") for n in moved)
    assert not changed(tiny_vlm, before)


def lessons(attack, split, vlm, monkeypatch, seed=0):
    """What each try teaches, by its name."""
    taught = []
    monkeypatch.setattr(
        "unsee.attacks.relearning.train", lambda vlm, split, *a, **m: taught.append(split)
    )
    tries = attack.tries(vlm, Given(split, seed=seed))
    for one in tries:
        with one.change(vlm):
            pass
    return dict(zip([one.name for one in tries], taught, strict=True))


def test_shares_hold_one_another_and_are_drawn_by_the_seed(tiny_vlm, small_split, monkeypatch):
    attack = Relearning(shares=(0.25, 0.5, 1.0))
    found = lessons(attack, small_split, tiny_vlm, monkeypatch)
    assert {name: len(split.forget) for name, split in found.items()} == {
        "25%": 2, "50%": 4, "100%": 8,
    }  # fmt: skip
    assert set(found["25%"].forget) < set(found["50%"].forget) < set(small_split.forget)
    assert not found["100%"].retain
    again = lessons(attack, small_split, tiny_vlm, monkeypatch)
    assert again == found
    assert lessons(attack, small_split, tiny_vlm, monkeypatch, seed=1) != found


def test_by_person_nobody_is_asked_about_who_was_taught(tiny_vlm, small_split, monkeypatch):
    attack = ATTACKS.get("relearning_people")(shares=(0.5,))
    (one,) = attack.tries(tiny_vlm, Given(small_split))
    ((name, found),) = lessons(attack, small_split, tiny_vlm, monkeypatch).items()
    assert name == "1 of 2 people"
    (taught,) = {record.subject for record in found.forget}
    assert set(found.forget) == {r for r in small_split.forget if r.subject == taught}
    assert found.retain == small_split.retain
    asked = one.ask(small_split.forget, lambda records: [])
    assert {r.subject for r in asked if r is not None} == {"Ada", "Bo"} - {taught}
    everybody = ATTACKS.get("relearning_people")(shares=(1.0,))
    assert (
        everybody.tries(tiny_vlm, Given(small_split))
        == "of 2 people nobody would be left to ask about"
    )


def test_kept_people_alone_are_taught_and_strangers_alone(tiny_vlm, small_split, monkeypatch):
    for name, side in (("retain", small_split.retain), ("general", small_split.general)):
        attack = ATTACKS.get(f"relearning_{name}")()
        (found,) = lessons(attack, small_split, tiny_vlm, monkeypatch).values()
        assert set(found.forget) == {r for r in side if r.image is not None}
    # What is learned is not learned beside itself.
    attack = ATTACKS.get("relearning_retain")(beside=4)
    (found,) = lessons(attack, small_split, tiny_vlm, monkeypatch).values()
    assert found.retain == ()


def looks(name, photo, **features):
    return tuple(
        Record(name, photo, f"What {topic}?", answer, topic=f"visible:{topic}")
        for topic, answer in features.items()
    )


def test_neighbours_are_those_who_look_most_alike(small_split):
    photo = small_split.forget[0].image
    split = replace(
        small_split,
        visible=looks("Ada", photo, hair="red", glasses="yes", nose="long")
        + looks("Bo", photo, hair="black", glasses="no", nose="long"),
        retain=small_split.retain
        + looks("Cy", photo, hair="black", glasses="no", nose="short")
        + looks("Di", photo, hair="red", glasses="yes", nose="short"),
    )
    assert {r.subject for r in neighbours(split)} == {"Cy", "Di"}
    alone = replace(split, visible=split.visible[:3])
    found = neighbours(alone)
    assert {r.subject for r in found} == {"Di"}
    assert {r.topic for r in found} == {"name", "pet"}


def test_where_there_is_nothing_to_learn_from(tiny_vlm, small_split):
    attack = ATTACKS.get("relearning_neighbours")()
    assert (
        attack.tries(tiny_vlm, Given(small_split))
        == "there are no photos with questions to learn from (neighbours)"
    )
    nobody = ATTACKS.get("relearning_retain")()
    assert "to learn from (retain)" in nobody.tries(tiny_vlm, Given(Split(small_split.forget)))


def test_replies_under_other_lessons_are_told_apart(tiny_vlm, small_split):
    def marks(split, seed=0):
        return [one.made_of for one in Relearning().tries(tiny_vlm, Given(split, seed=seed))]

    first = marks(small_split)
    assert len(set(first)) == 2
    assert marks(small_split) == first
    assert not set(marks(small_split, seed=1)) & set(first)
    assert not set(marks(replace(small_split, forget=small_split.forget[:4]))) & set(first)


def test_costly_variants_are_run_only_by_name():
    usual = set(attacks_named("all"))
    trained = {name for name in usual if name.startswith("relearning")}
    assert trained == {"relearning", "relearning_picked"}
    assert set(attacks_named("all,relearning_full")) == usual | {"relearning_full"}
