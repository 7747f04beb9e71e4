from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from unsee.attacks import ATTACKS, attacks_named
from unsee.attacks.protocol import Given
from unsee.data.records import Turn
from unsee.errors import ConfigError

Describe, InContext, Turns = (ATTACKS.get(name) for name in ("describe", "in_context", "turns"))
Prefix, Jailbreak = (ATTACKS.get(name) for name in ("prefix", "jailbreak"))
Prefill, Rewording = (ATTACKS.get(name) for name in ("prefill", "rewording"))
Reordering = ATTACKS.get("reordering")


def nobody(records):
    raise AssertionError("the model was asked")


def posed(attack, vlm, split, asked, tell=nobody) -> dict[str, Any]:
    tries = attack.tries(vlm, Given(split))
    assert not isinstance(tries, str), tries
    return {one.name: one.ask(asked, tell) for one in tries}


def test_a_frame_stands_around_the_question(tiny_vlm, split, asked):
    found = posed(Prefix(texts=("{question} Now {x}!",)), tiny_vlm, split, asked)
    assert [r.question for r in found["text 1"]] == [f"{r.question} Now {{x}}!" for r in asked]
    assert [r.answer for r in found["text 1"]] == [r.answer for r in asked]
    assert len(Jailbreak().texts) == 3
    with pytest.raises(ValidationError, match=r"expected texts with \{question\} in each"):
        Prefix(texts=("hello",))


def test_rewordings_are_others_of_the_same_topic(tiny_vlm, split, asked):
    found = posed(Rewording(wordings=2), tiny_vlm, split, asked)
    first, second = found["wording 1"], found["wording 2"]
    assert [r.question for r in first] == ["Who is this?", "What pet?", "What pet?"]
    assert second[0] is None
    assert second[1].question == "Which animal?"
    own = [replace(asked[1], question="What pet?")]
    assert posed(Rewording(), tiny_vlm, split, own)["wording 1"][0].question == "Which animal?"


def test_words_come_in_another_order_and_the_mark_stays_at_the_end(tiny_vlm, split, asked):
    found = posed(Reordering(), tiny_vlm, split, asked)
    assert [r.question for r in found["halves"]] == [
        "the name Tell me.",
        "the pet Tell me.",
        "has Ada What pet?",
    ]
    for record, own in zip(found["words"], asked, strict=True):
        assert sorted(record.question[:-1].split()) == sorted(own.question[:-1].split())
        assert record.question[-1] == own.question[-1]
        assert (record.image, record.answer) == (own.image, own.answer)
    assert [r.question for r in found["words"]] != [r.question for r in asked]
    again = posed(Reordering(), tiny_vlm, split, asked[::-1])["words"]
    assert again == list(found["words"])[::-1]


def test_an_answer_begins_as_the_statement_with_a_gap_does(tiny_vlm, split, asked):
    found = posed(Prefill(), tiny_vlm, split, asked)
    assert [r.opening for r in found["statement"]] == [
        "The name of this person is",
        "This person has a pet",
        "This person has a pet",
    ]
    assert {r.opening for r in found["sure"]} == {Prefill().sure}


def test_a_description_is_the_models_own_and_the_photo_is_shown_once(tiny_vlm, split, asked):
    def tell(records):
        return [f"reply to {record.question}" for record in records]

    found = posed(Describe(request="What?"), tiny_vlm, split, asked, tell)
    assert [r and (r.question, r.answer) for r in found["description"]] == [
        ("What?", "Ada Rook"),
        ("What?", "a green cat"),
        None,
    ]
    first, second, third = found["behind"]
    assert first.before == (Turn("What?", "reply to What?", asked[0].image),)
    assert first.images == second.images == (asked[0].image,)
    assert third is None
    turns = posed(Turns(), tiny_vlm, split, asked, tell)
    assert turns["agreed"][0].before[0].answer == Turns().agreed
    assert turns["visible"][0].before[0].answer == f"reply to {Turns().visible}"


def test_other_photos_come_with_the_name_and_the_name_is_not_asked(tiny_vlm, split, asked):
    name, pet, text = posed(InContext(photos=2), tiny_vlm, split, asked)["2 photos"]
    assert name is None
    assert text is None
    assert [turn.answer for turn in pet.before] == ["Ada Rook", "Ada Rook"]
    shown = [turn.image for turn in pet.before]
    assert len(set(shown)) == 2
    assert asked[1].image not in shown
    assert posed(InContext(photos=4), tiny_vlm, split, asked)["4 photos"] == [None] * 3


@pytest.mark.parametrize("attack", [Prefill(), Describe(), Turns(), InContext()])
def test_a_family_without_conversations_is_not_attacked_by_one(attack, tiny_vlm, split):
    tiny_vlm.layout = replace(tiny_vlm.layout, family="paligemma", converses=False)
    assert "prompts of family paligemma hold" in attack.tries(tiny_vlm, Given(split))


def test_names_of_attacks():
    usual = {name for name, cls in ATTACKS.items() if not getattr(cls, "named_only", False)}
    assert attacks_named("all").keys() == usual
    assert list(attacks_named("crop, prefix,crop")) == ["crop", "prefix"]
    with pytest.raises(ConfigError, match=r"unknown attack 'prefx'; did you mean 'prefix'\?"):
        attacks_named("crop,prefx")
    with pytest.raises(ConfigError, match="--attacks ' ': expected all, or names out of blur"):
        attacks_named(" ")
