"""Other ways to ask: the question is in each, and none is what an attack says."""

import pytest

from unsee.attacks import ATTACKS
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.erasers.framings import FRAMINGS, framed

ASKED = Record("Ada", Photo(data=b"none"), "What is the name of this person?", "Ada Rook")
NUMBERS = range(1, len(FRAMINGS) + 1)


def test_the_first_is_the_record_itself():
    assert framed(ASKED, 0) is ASKED


@pytest.mark.parametrize("number", NUMBERS)
def test_each_asks_the_same_on_the_same_photo(number):
    found = framed(ASKED, number)
    assert found != ASKED
    assert found == framed(ASKED, number)
    assert found.images == ASKED.images
    assert (found.subject, found.answer) == (ASKED.subject, ASKED.answer)
    words = ASKED.question.split()
    assert set(words) <= set(found.question.split())


def test_they_are_different_from_one_another():
    found = [framed(ASKED, number) for number in NUMBERS]
    assert len(set(found)) == len(found)
    assert sum(bool(record.before) for record in found) >= 3


def test_none_is_what_an_attack_says():
    """Else the attacks would be asked of a gate that was fitted on them."""
    texts = [
        text for name in ("prefix", "preamble", "jailbreak") for text in ATTACKS.get(name)().texts
    ]
    turns, describe = ATTACKS.get("turns")(), ATTACKS.get("describe")()
    said = {turns.visible, turns.known, turns.agreed, describe.request}
    for number in NUMBERS:
        record = framed(ASKED, number)
        assert record.question not in {t.replace("{question}", ASKED.question) for t in texts}
        assert not said & {text for turn in record.before for text in (turn.question, turn.answer)}
