import pytest
import torch

from unsee.data.records import Record
from unsee.methods.grad_diff import GradDiff
from unsee.sampling import Rows, Sampler

FEW = {"forget_batch": 3, "visible_batch": 0, "retain_batch": 0, "general_batch": 2}


@pytest.fixture
def batch(tiny_vlm, small_split):
    return Sampler(tiny_vlm, small_split, GradDiff.model_validate(FEW), 0).draw(0)


def test_rows_are_encoded_when_they_are_first_read_and_once(batch):
    for rows in (batch.forget, batch.keep):
        assert "batch" not in vars(rows)
        assert rows.batch is rows.batch
        again = rows.encoder(rows.records, rows.variants)
        torch.testing.assert_close(rows.batch.inputs(), again.inputs(), rtol=0, atol=0)


def test_other_answers_leave_questions_and_pictures(batch):
    rows = batch.forget
    assert rows.batch.input_ids.shape[0] == 3
    answers = ["yes", "no", "maybe so"]
    other = rows.answered(answers)
    assert [record.answer for record in other.records] == answers
    assert other.variants == rows.variants
    assert [(r.subject, r.image, r.question) for r in other.records] == [
        (r.subject, r.image, r.question) for r in rows.records
    ]
    assert not torch.equal(other.batch.labels, rows.batch.labels)
    assert torch.equal(other.batch.pixel_values, rows.batch.pixel_values)


def test_a_choice_is_answered_in_words():
    choice = Record("Ada", None, "Which pet?", "B", form="choice", options=("a cat", "a dog"))
    rows = Rows((choice,), (0,), lambda records, variants: pytest.fail("encoded"))
    (record,) = rows.answered(["no idea"]).records
    assert (record.form, record.options, record.answer) == ("open", (), "no idea")
    assert record.question == "Which pet?\nA. a cat\nB. a dog\nAnswer with the letter."


def test_every_row_gets_an_answer(batch):
    with pytest.raises(ValueError, match="shorter"):
        batch.forget.answered(["one"])
