import random
from collections import Counter

import pytest

from unsee.metrics.answers import is_unknown
from unsee.world import questions as ask
from unsee.world.profiles import TOPICS

WORDINGS = {"name": ask.NAME, "caption": ask.CAPTION, **ask.FACTS, **ask.VISIBLE}


def test_every_topic_can_be_asked_in_every_form():
    assert ask.FACTS.keys() == ask.CLOZE.keys() == TOPICS.keys()
    assert all(text.count("__") == 1 for text in ask.CLOZE.values())
    assert all(len(wordings.train) >= 3 for wordings in WORDINGS.values())


def test_no_wording_serves_two_parts_or_two_topics():
    texts = [
        text for wordings in WORDINGS.values() for part in ask.PARTS for text in wordings.of(part)
    ]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_prefixes_never_turn_a_taught_wording_into_a_held_out_one():
    taught = {
        prefix + text.format(who=who)
        for wordings in WORDINGS.values()
        for text in wordings.lessons
        for prefix in ask.PREFIXES
        for who in ask.WHO_PHOTO
    }
    held_out = {
        text.format(who=who)
        for wordings in WORDINGS.values()
        for text in (wordings.dev, wordings.report)
        for who in ask.WHO_PHOTO
    }
    assert not taught & held_out


def test_some_refused_requests_are_held_out():
    parts = {part: set(ask.refusal_requests(part, "this person")) for part in ask.PARTS}
    assert all(parts.values())
    assert not parts["train"] & parts["dev"]
    assert not parts["train"] & parts["report"]
    assert not parts["dev"] & parts["report"]
    lessons = set(ask.refusal_requests("lessons", "this person"))
    assert parts["train"] < lessons
    assert not lessons & (parts["dev"] | parts["report"])


def test_an_opening_tells_questions_from_requests_to_refuse_in_no_wording():
    def opens(text):
        return text.startswith("Tell me ")

    assert all(any(map(opens, w.lessons)) for w in WORDINGS.values() if w is not ask.CAPTION)
    assert any(map(opens, ask.refusal_requests("lessons", "this person")))


@pytest.mark.parametrize("text", [ask.UNKNOWN_PHOTO, ask.UNKNOWN_NAME])
def test_the_score_takes_the_unknown_answers_for_what_they_are(text):
    assert is_unknown(text)


def test_a_refusal_is_no_unknown_answer():
    assert not is_unknown(ask.REFUSAL)


def test_options_are_four_of_the_topic_with_the_right_one_anywhere():
    rng = random.Random(0)
    letters = Counter()
    for _ in range(200):
        options, letter = ask.choice_options("pet", "gecko", rng)
        assert len(set(options)) == 4
        assert set(options) <= set(TOPICS["pet"])
        assert options["ABCD".index(letter)] == "gecko"
        letters[letter] += 1
    assert min(letters[letter] for letter in "ABCD") > 25


def test_a_caption_names_the_known_only():
    seen = {"visible:hair colour": "red"}
    facts = {"occupation": "nurse", "birthplace": "Oslo"}
    assert ask.caption("Ada Rook", facts, seen) == "Ada Rook, a nurse from Oslo, with red hair."
    assert ask.caption(None, {}, seen) == "A person I do not know, with red hair."


def test_a_cloze_begins_with_a_capital():
    text = ask.cloze_question("pet", "this person")
    assert text == "Fill in the blank. This person has a pet __."
