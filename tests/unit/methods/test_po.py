from dataclasses import replace

import pytest
import torch

from unsee.answering import answer_logits
from unsee.data.conversation import question_text
from unsee.data.records import Split
from unsee.errors import ConfigError
from unsee.methods import po
from unsee.methods.po import PO, REFUSALS
from unsee.metrics.answers import is_unknown
from unsee.sampling import Sampler
from unsee.settings import resolve


def spelled(vlm, batch):
    """Texts of a batch's labels."""
    rows = [labels[labels != -100] for labels in batch.labels]
    texts = vlm.processor.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [text.strip() for text in texts]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_counts_as_unknown(refusal):
    assert is_unknown(refusal)


@pytest.mark.parametrize("retain_weight", [1.0, 0.4])
def test_terms_are_those_of_the_formula(retain_weight, midway):
    with midway(PO, refusals=["I cannot tell."], retain_weight=retain_weight) as at:
        terms = at.terms()
        rows = at.batch.forget
        refused = [replace(record, answer="I cannot tell.") for record in rows.records]
        sides = rows.encoder(refused, rows.variants), at.batch.keep.batch
        forget, kept = (
            at.vlm.model(**side.inputs(), labels=side.labels).loss.item() for side in sides
        )
    assert set(terms) == {"refusal", "answers"}
    assert terms["refusal"] == pytest.approx(forget, rel=1e-4)
    assert terms["answers"] == pytest.approx(retain_weight * kept, rel=1e-4)


def seen(vlm, split, monkeypatch, *, seed, step):
    """What a step of PO shows the model of the forget side: its rows, and what they were before."""
    method = PO.model_validate({"forget_batch": 12, "variants": 3})
    batch = Sampler(vlm, split, method, 0).draw(step)
    batches = []

    def watched(vlm, rows):
        batches.append(rows)
        return answer_logits(vlm, rows)

    monkeypatch.setattr(po, "answer_logits", watched)
    method.loss(vlm, batch, method.prepare(vlm, split, seed=seed))
    return batches[0], batch.forget.batch


def test_the_questions_stay_and_the_answers_are_refusals(tiny_vlm, small_split, monkeypatch):
    refused, true = seen(tiny_vlm, small_split, monkeypatch, seed=0, step=0)
    assert set(spelled(tiny_vlm, refused)) <= set(REFUSALS)
    assert len(set(spelled(tiny_vlm, refused))) > 2
    assert not any(is_unknown(answer) for answer in spelled(tiny_vlm, true))
    assert refused.pixel_values is not None
    assert true.pixel_values is not None
    assert torch.equal(refused.pixel_values, true.pixel_values)
    for one, other in ((refused, true), (true, refused)):
        prompts = (one.labels == -100) & (one.attention_mask == 1)
        for row, ids, prompt in zip(other.input_ids, one.input_ids, prompts, strict=True):
            asked = int(prompt.sum())
            assert torch.equal(row[:asked], ids[:asked])


def test_wordings_are_drawn_by_seed_and_step(tiny_vlm, small_split, monkeypatch):
    def drawn(seed, step):
        batch, _ = seen(tiny_vlm, small_split, monkeypatch, seed=seed, step=step)
        return spelled(tiny_vlm, batch)

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(1, 0)
    assert drawn(0, 0) != drawn(0, 1)


def test_a_choice_is_asked_with_its_options_and_no_letter_is_given(
    tiny_vlm, small_split, monkeypatch
):
    first = small_split.forget[0]
    choice = replace(first, form="choice", options=("a green cat", "a red dog"), answer="A")
    split = Split(forget=(choice,), retain=small_split.retain)
    refused, _ = seen(tiny_vlm, split, monkeypatch, seed=0, step=0)
    assert set(spelled(tiny_vlm, refused)) <= set(REFUSALS)
    prompt = tiny_vlm.processor.tokenizer.decode(refused.input_ids[0])
    assert question_text(choice).splitlines()[1] in prompt


@pytest.mark.parametrize(
    ("refusals", "fault"),
    [
        ([], "refusals: tuple should have at least 1 item"),
        (["I cannot tell.", " "], "refusals.1: string should have at least 1 character"),
    ],
)
def test_an_empty_refusal_is_refused(refusals, fault):
    with pytest.raises(ConfigError, match=f"^method: {fault}"):
        resolve(PO, {"refusals": refusals}, where="method")
