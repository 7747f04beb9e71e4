"""Six objectives, each against its formula, and what they are trained on."""

import math
import random
from dataclasses import replace

import pytest
import torch

from unsee.data.records import Split
from unsee.errors import ConfigError, DataError
from unsee.lens import answer_tokens
from unsee.methods.unlok import (
    EmptyResponse,
    ErrorInjection,
    FactErasure,
    HeadProjection,
    InputRephrasing,
    MaxEntropy,
    wordings,
    wrong_answers,
)
from unsee.metrics.answers import is_unknown
from unsee.models.load import load
from unsee.settings import resolve

ALL = (FactErasure, EmptyResponse, ErrorInjection, HeadProjection, MaxEntropy, InputRephrasing)
each = pytest.mark.parametrize("cls", ALL)


@pytest.fixture(params=[{"lora_rank": 0}, {"lora_rank": 2}], ids=["full", "adapters"])
def midway(request, midway):
    """As for other methods; here adapters are the default."""
    return lambda cls, **settings: midway(cls, **(settings | request.param))


def token_logprobs(vlm, rows):
    """Of each row, log-probabilities of its answer's tokens."""
    with torch.no_grad():
        logits = vlm.model(**rows.batch.inputs(), use_cache=False).logits[:, :-1].log_softmax(-1)
    labels = rows.batch.labels[:, 1:]
    return [
        [logits[row, at, labels[row, at]].item() for at in (labels[row] != -100).nonzero()[:, 0]]
        for row in range(len(labels))
    ]


def probability(vlm, rows):
    found = [math.exp(sum(row) / len(row)) for row in token_logprobs(vlm, rows)]
    return sum(found) / len(found)


def surprise(vlm, rows):
    tokens = [value for row in token_logprobs(vlm, rows) for value in row]
    return -sum(tokens) / len(tokens)


def test_erasure_is_the_probability_of_the_answers(midway):
    with midway(FactErasure, retain_weight=0.5) as at:
        terms = at.terms()
        assert set(terms) == {"probability", "answers"}
        assert terms["probability"] == pytest.approx(probability(at.vlm, at.batch.forget), rel=1e-4)
        kept = surprise(at.vlm, at.batch.keep)
        assert terms["answers"] == pytest.approx(0.5 * kept, rel=1e-4)


def test_the_empty_response_and_the_error_take_the_answers_place(midway):
    with midway(EmptyResponse, response=" Who knows? ") as at:
        told = at.batch.forget.answered(["Who knows?"] * 3)
        assert at.terms()["response"] == pytest.approx(surprise(at.vlm, told), rel=1e-4)
    with midway(ErrorInjection) as at:
        told = at.batch.forget.answered([at.state[r] for r in at.batch.forget.records])
        assert at.terms()["error"] == pytest.approx(surprise(at.vlm, told), rel=1e-4)
    assert is_unknown(EmptyResponse().response)


def inner(at, layers):
    """Chances at the token behind the article of pets, and at the first of names; (layer, row)."""
    batch = at.batch.forget.batch
    with torch.no_grad():
        states = at.vlm.model(**batch.inputs(), output_hidden_states=True, use_cache=False)
    norm = at.vlm.model.get_submodule(at.vlm.layout.last_norm_path(at.vlm.model))
    head = at.vlm.model.get_submodule(at.vlm.layout.head)
    for layer in layers:
        for row, record in enumerate(at.batch.forget.records):
            article = answer_tokens(at.vlm, replace(record, topic=""), ["a"])[0]
            skipped = len(article) - 1 if record.topic == "pet" else 0
            column = int((batch.labels[row] != -100).int().argmax()) + skipped
            # State 0 is the embedding, and the last one went through the norm already.
            state = states.hidden_states[layer + 1][row, column - 1]
            last = layer == len(states.hidden_states) - 2
            with torch.no_grad():
                chances = head(state if last else norm(state)).softmax(-1)
            yield chances.tolist(), int(batch.labels[row, column])


@pytest.mark.parametrize(("defended", "layers"), [(None, [2]), (2, [1, 2])])
def test_inner_objectives_read_the_last_layers_where_answers_part(defended, layers, midway):
    # Names part at their first token, pets behind the article; nothing parts behind that.
    with midway(MaxEntropy, defended=defended) as at:
        assert {r.topic for r in at.batch.forget.records} == {"name", "pet"}
        found = at.terms()["entropy"]
        expected = [sum(p * math.log(p) for p in row) for row, _ in inner(at, layers)]
        assert found == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    top = 100
    with midway(HeadProjection, defended=defended, top=top) as at:
        expected = []
        for row, token in inner(at, layers):
            others = sorted(row[:token] + row[token + 1 :])
            expected += [max(0, row[token] - others[-top]) + max(0, others[top - 1] - row[token])]
        assert defended is None or max(expected) > 0
        assert at.terms()["extremes"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_rephrased_questions_join_those_that_were_drawn(midway, monkeypatch):
    with midway(InputRephrasing, rephrasings=2, texts=("Say it: {question}",)) as at:
        seen = []
        encoder = at.batch.forget.encoder

        def watched(records, variants):
            seen.append((records, variants))
            return encoder(records, variants)

        object.__setattr__(at.batch.forget, "encoder", watched)
        found = at.terms()["probability"]
        ((records, variants),) = seen
        rows = replace(at.batch.forget, records=records, variants=variants)
        assert found == pytest.approx(probability(at.vlm, rows), rel=1e-4)
    drawn = at.batch.forget.records
    assert variants == at.batch.forget.variants * 3
    assert records[:3] == drawn
    for own, other in zip(drawn * 2, records[3:], strict=True):
        # The request has one wording of each question: there is nothing but the text around it.
        assert other == replace(own, question=f"Say it: {own.question}")


def test_other_wordings_of_the_request_are_used_and_names_stay(small_split):
    asked = small_split.forget[0]
    split = replace(
        small_split,
        retain=tuple(
            replace(record, question=question)
            for record in small_split.retain
            for question in (record.question, f"Tell me. {record.question}", record.subject + "?")
        ),
    )
    method = InputRephrasing()
    known = wordings((*split.forget, *split.retain))
    assert known["open", "name"] == ["Who is this?", "Tell me. Who is this?"]
    rng = random.Random(0)
    found = {method._rephrased(asked, known, rng) for _ in range(60)}
    other = "Tell me. Who is this?"
    assert found == {other, *(text.replace("{question}", other) for text in method.texts)}
    told = replace(asked, image=None, question="Who is Ada?")
    assert all("Who is Ada?" in method._rephrased(told, known, rng) for _ in range(20))


def test_wrong_answers_are_anothers_and_the_same_for_all_that_asks_alike(small_split):
    split = small_split
    gap = [
        replace(r, form="cloze", question="The pet is __.")
        for r in split.forget
        if r.topic == "pet"
    ]
    split = replace(split, forget=(*split.forget, *gap))
    pets = {r.answer for r in (*split.forget, *split.retain) if r.topic == "pet"}
    drawn = set()
    for seed in range(8):
        found = wrong_answers(split, seed=seed)
        assert found == wrong_answers(split, seed=seed)
        for record, answer in found.items():
            assert answer != record.answer
            assert (answer in pets) == (record.topic == "pet")
        told = {(record.subject, record.topic, answer) for record, answer in found.items()}
        assert len(told) == 4
        drawn |= told
    assert len(drawn) > 8


def test_what_is_true_twice_is_never_injected(small_split):
    """Ada has two pets, and somebody else has one of them."""
    ada = [r for r in small_split.forget if r.topic == "pet" and r.subject == "Ada"]
    forget = (ada[0], replace(ada[1], answer="A red dog!"))
    retain = [r for r in small_split.retain if r.topic == "pet"]
    split = Split(forget=forget, retain=(*retain, replace(retain[0], answer="a red dog")))
    for seed in range(12):
        assert set(wrong_answers(split, seed=seed).values()) <= {"a blue bird", "a white hare"}


def test_a_choice_gets_another_letter_and_a_lone_question_anything_known(small_split):
    first = small_split.forget[0]
    choice = replace(first, form="choice", options=("a", "b", "c"), answer="B")
    lone = replace(first, topic="", question="What does the sign say?", answer="Closed")
    unsure = replace(small_split.retain[0], topic="", question="Why?", answer="I do not know.")
    kept = small_split.retain[1]
    split = Split(forget=(choice, lone), retain=(kept, unsure))
    letters = {wrong_answers(split, seed=seed)[choice] for seed in range(12)}
    assert letters == {"A", "C"}
    assert {wrong_answers(split, seed=seed)[lone] for seed in range(6)} == {kept.answer}


def test_no_other_answer_is_refused_without_naming_the_right_one(small_split):
    first = small_split.forget[0]
    split = Split(forget=(first,), general=small_split.general)
    message = (
        r"^error_injection: expected another answer to put in the place of the right one, got none "
        r"in what is to be forgotten and kept; check --retain, or choose another method$"
    )
    with pytest.raises(DataError, match=message):
        wrong_answers(split, seed=0)


@each
def test_one_matrix_is_trained(cls, tiny_vlm):
    # Three layers: 7/32 of the depth is nearest to the second.
    for layer, number in ((None, 1), (0, 0), (2, 2)):
        method = cls.model_validate({"layer": layer})
        path = f"{tiny_vlm.layout.language_layers}.{number}.mlp.down_proj"
        assert method.lora_targets(tiny_vlm) == [path]
        assert method.trainable(tiny_vlm) == [f"{path}.weight"]


@each
def test_a_layer_that_is_not_there_is_refused(cls, tiny_vlm):
    with pytest.raises(ConfigError, match=r"^method\.layer: expected at most 2 for .*, got 3$"):
        cls.model_validate({"layer": 3}).lora_targets(tiny_vlm)


@pytest.mark.parametrize("cls", [HeadProjection, MaxEntropy])
def test_a_layer_that_the_change_cannot_reach_is_refused(cls, tiny_folder, small_split):
    vlm = load(tiny_folder, dtype="float32", device="cpu")
    message = (
        r"^method\.defended: expected at most 1 for .*, the layers from the one that is trained "
        r"on, got 2$"
    )
    with pytest.raises(ConfigError, match=message):
        cls.model_validate({"layer": 2, "defended": 2}).prepare(vlm, small_split, seed=0)
    # Left open, no more are read than there are.
    assert cls.model_validate({"layer": 2}).prepare(vlm, small_split, seed=0)


@pytest.mark.parametrize("texts", [["Well?"], []])
def test_a_text_without_the_question_is_refused(texts):
    with pytest.raises(
        ConfigError, match=r"^method: texts: expected texts with \{question\} in each \(got \["
    ):
        resolve(InputRephrasing, {"texts": texts}, where="method")
