import pytest

from unsee.data.images import Photo
from unsee.data.records import SETS, Record, Split
from unsee.errors import DataError


def record(subject="jane", **fields):
    return Record(
        **{"subject": subject, "image": None, "question": "Who?", "answer": "Jane"} | fields
    )


def test_sets_are_those_of_the_report_in_order():
    assert SETS[:4] == ("forget_seen", "forget_unseen", "forget_text", "forget_visible")
    assert SETS[4:] == (
        "retain_seen", "retain_unseen", "retain_text", "celebrity", "bystander", "general",
        "refusal",
    )  # fmt: skip


def test_choice_needs_a_letter_of_its_options():
    choice = record(form="choice", options=("Oslo", "Rome"), answer="B")
    assert choice.options[1] == "Rome"
    with pytest.raises(DataError, match="expected a letter out of AB, got 'C'"):
        record(form="choice", options=("Oslo", "Rome"), answer="C")
    with pytest.raises(DataError, match="expected 2 to 26 texts, got 0"):
        record(form="choice", answer="A")


def test_all_faults_of_a_record_are_reported_at_once():
    with pytest.raises(DataError) as caught:
        record(question=" ", options=("Oslo",), set="forgotten")
    message = str(caught.value)
    assert "record about 'jane'" in message
    assert "empty question" in message
    assert "expected none for form 'open', got 1" in message
    assert "got 'forgotten'" in message
    assert "\n" not in message


def test_same_person_on_both_sides_is_named():
    with pytest.raises(DataError, match=r"expected different people .* got jane, tom in both"):
        Split(
            forget=(record("jane"), record("tom")),
            retain=(record("tom"), record("jane"), record("eve")),
        )
    with pytest.raises(DataError, match="jane"):
        Split(forget=(), subjects=("jane",), retain=(record("jane"),))


def test_unknown_audit_set_is_refused():
    with pytest.raises(DataError, match="got forget_sen; rename"):
        Split(forget=(record(),), audit={"forget_sen": (record(),)})


def test_photo_needs_a_source():
    with pytest.raises(DataError, match="expected a path or bytes, got neither"):
        Photo()
