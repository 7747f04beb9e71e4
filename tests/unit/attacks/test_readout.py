import numpy as np
import pytest

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given
from unsee.attacks.readout import answer_lists
from unsee.data.records import Record, Split

READOUTS = ("head_projection", "probability_delta", "second_difference")


@pytest.fixture
def many(photo):
    """Ten people with names of their own, and five pets between them; P0 is forgotten."""
    return [
        record
        for number in range(10)
        for shown in (photo(number),)
        for record in (
            Record(f"P{number}", shown, "Who?", f"Name {number}", topic="name"),
            Record(f"P{number}", shown, "What pet?", f"pet {number % 5}", topic="pet"),
        )
    ]


@pytest.fixture
def split(many):
    return Split(forget=tuple(many[:2]), retain=tuple(many[2:]))


def test_lists_are_of_open_questions_on_photos_and_of_what_is_known(many, photo):
    more = [
        Record("Z", photo(0), "Who?", "I do not know.", topic="name"),
        Record("Z", photo(0), "Who?", "name 3!", topic="name"),
        Record("Z", None, "Who is Z?", "Zed", topic="name"),
        Record("Z", photo(0), "Fill __.", "Zed", form="cloze", topic="name"),
        Record("Z", photo(0), "What?", "Zed"),
    ]
    found = answer_lists([*more, *many])
    assert set(found) == {"name", "pet"}
    # Written as they came first, each once, in the order of the alphabet.
    assert found["name"] == ("Name 0", "Name 1", "Name 2", "name 3!", *(
        f"Name {n}" for n in range(4, 10)
    ))  # fmt: skip
    assert found["pet"] == tuple(f"pet {n}" for n in range(5))


@pytest.mark.parametrize("name", READOUTS)
def test_short_lists_are_left_out_where_chance_would_be_high(
    name, tiny_vlm, split, many, monkeypatch
):
    """Four guesses want ten answers; of five, two may be guessed."""
    calls = []

    def chances(vlm, records, answers):
        calls.append(answers)
        # The right answer leads by far at the second of three layers.
        found = np.full((len(records), 3, len(answers)), 0.01)
        for row, record in enumerate(records):
            found[row, 1, answers.index(record.answer)] = 0.9
        return found

    monkeypatch.setattr("unsee.attacks.readout.answer_chances", chances)
    asked = [*many[:2], Record("P0", many[0].image, "Who?", "Nobody", topic="name"),
             Record("P0", None, "Who is P0?", "Name 0", topic="name")]  # fmt: skip
    tries = ATTACKS.get(name)().tries(tiny_vlm, Given(split))
    assert [one.name for one in tries] == ["B=1", "B=2", "B=4"]
    success = [one.read(tiny_vlm, asked).success for one in tries]
    # An answer that is on no list, and a question without a photo, cannot be looked for.
    nan = float("nan")
    np.testing.assert_array_equal(success[0], [1, 1, nan, nan])
    np.testing.assert_array_equal(success[1], [1, 1, nan, nan])
    np.testing.assert_array_equal(success[2], [1, nan, nan, nan])
    # One look a list, whatever the number of budgets.
    assert len(calls) == 2
    # Others are looked at anew, and no answer of the first ones is taken for theirs.
    others = [many[2], many[0]]
    np.testing.assert_array_equal(tries[0].read(tiny_vlm, others).success, [1, 1])
    assert len(calls) == 3
    np.testing.assert_array_equal(tries[0].read(tiny_vlm, asked).success, [1, 1, nan, nan])
    assert len(calls) == 5


@pytest.mark.parametrize("name", READOUTS)
def test_without_lists_it_says_why(name, tiny_vlm, split, many):
    few = Split(forget=tuple(many[:2]))
    assert ATTACKS.get(name)().tries(tiny_vlm, Given(few)) == (
        "no kind of question has enough known answers: 1, and guesses would be right by chance in "
        "more than 40%"
    )
