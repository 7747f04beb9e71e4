"""Edits at the input of language layers: what they see and change, and that they leave no trace."""

import pytest
import torch
from transformers import DynamicCache

from unsee.answering import answer_logprobs
from unsee.data.collate import encode, reply_mark
from unsee.data.records import Record, Turn
from unsee.errors import LayoutError
from unsee.models.hooks import edited
from unsee.models.passes import bypassed, margins_read, scoring


def paths(vlm):
    return vlm.layout.language_layer_paths(vlm.model)


@pytest.fixture
def listen(tiny_vlm):
    """Runs something under edits that only write down the passes; returns these."""

    def run(work, layers=(0,), **more):
        seen = []

        def note(hidden, now):
            seen.append((now, hidden))
            return hidden

        where = {paths(tiny_vlm)[layer]: [note] for layer in layers}
        with edited(tiny_vlm.model, tiny_vlm.layout, where, **more), torch.no_grad():
            work()
        return seen

    return run


def push(size=1.0, rows=None):
    """Adds to prompt tokens, of all rows or some."""

    def edit(hidden, now):
        where = now.prompt if rows is None else now.prompt & rows[:, None]
        return hidden + size * where[..., None]

    return edit


def logits(vlm, batch, **more):
    with torch.no_grad():
        return vlm.model(**batch.inputs(), use_cache=False, **more).logits


@pytest.fixture
def mixed(tiny_vlm, small_split):
    """Two rows with a photo and a shorter one without, padded on the left."""
    records = (*small_split.forget[:2], small_split.general[-1])
    return encode(tiny_vlm, records, answers=False, side="left")


def test_a_pass_tells_tokens_photos_and_the_last_prompt_token(tiny_vlm, listen, mixed):
    ((now, hidden),) = listen(lambda: tiny_vlm.model(**mixed.inputs()))
    assert now.prefill
    assert torch.equal(now.tokens, mixed.attention_mask.bool())
    assert torch.equal(now.prompt, now.tokens)
    token = tiny_vlm.model.config.image_token_id
    assert torch.equal(now.image_tokens, mixed.input_ids == token)
    assert now.has_image.tolist() == [True, True, False]
    assert now.last.tolist() == [mixed.input_ids.shape[1] - 1] * 3
    assert hidden.shape[:2] == mixed.input_ids.shape


@pytest.fixture
def talk(small_split):
    """A conversation of two turns, a plain question, and one whose answer has begun."""
    photo = small_split.forget[0].image
    return (
        Record("Ada", None, "Who is this?", "", before=(Turn("Glasses?", "yes", photo),)),
        Record("Ada", photo, "Who is this?", ""),
        Record("Ada", photo, "Who is this?", "", opening="The name is"),
        Record("", None, "Who are you?", "", before=(Turn("Who?", "no"), Turn("And?", "yes"))),
    )


def test_turns_end_where_replies_begin(tiny_vlm, listen, talk):
    mark = reply_mark(tiny_vlm)
    batch = encode(tiny_vlm, talk, answers=False, side="left")
    ((now, _),) = listen(lambda: tiny_vlm.model(**batch.inputs()), reply_mark=mark)
    assert now.turn_ends.sum(1).tolist() == [2, 1, 1, 3]
    tokenizer = tiny_vlm.processor.tokenizer
    for ids, ends in zip(batch.input_ids, now.turn_ends, strict=True):
        for place in ends.nonzero()[:, 0].tolist():
            assert tokenizer.decode(ids[: place + 1]).endswith("ASSISTANT:")
    last = batch.input_ids.shape[1] - 1
    assert now.turn_ends[:, last].tolist() == [True, True, False, True]
    # A photo that is shown in the first turn is seen from there on.
    first = int(now.image_tokens[0].int().argmax())
    assert now.shown[0].tolist() == [place >= first for place in range(last + 1)]
    assert not now.shown[3].any()
    # Where nobody says how a turn ends, the last token of the prompt is the only end.
    ((plain, _),) = listen(lambda: tiny_vlm.model(**batch.inputs()))
    assert plain.turn_ends.nonzero().tolist() == [[row, last] for row in range(4)]


def test_turns_of_scored_prompts_and_of_what_goes_on_end_too(tiny_vlm, listen, talk):
    mark = reply_mark(tiny_vlm)
    seen = listen(lambda: answer_logprobs(tiny_vlm, talk[:3]), reply_mark=mark)
    ends = seen[0][0].turn_ends
    assert sorted(ends.sum(1).tolist()) == [1, 1, 2]
    assert not (ends & ~seen[0][0].prompt).any()

    def write():
        batch = encode(tiny_vlm, talk[:1], answers=False, side="left")
        out = tiny_vlm.model(**batch.inputs(), past_key_values=DynamicCache(), use_cache=True)
        for more in ([[60]], [[60, 61, *mark]], [[60, 61]]):
            tiny_vlm.model(input_ids=torch.tensor(more), past_key_values=out.past_key_values)

    _, word, turn, begun = (now for now, _ in listen(write, reply_mark=mark))
    assert not word.turn_ends.any()
    assert turn.turn_ends[0].tolist() == [False] * (1 + len(mark)) + [True]
    assert turn.shown.all()
    assert begun.turn_ends[0].tolist() == [False, True]


def test_a_family_of_one_turn_has_no_mark(tiny_vlm):
    from dataclasses import replace

    assert tiny_vlm.processor.tokenizer.decode(reply_mark(tiny_vlm)).strip() == "ASSISTANT:"
    tiny_vlm.layout = replace(tiny_vlm.layout, converses=False)
    assert reply_mark(tiny_vlm) == ()


def test_margins_are_told_to_who_reads_them_with_their_gradients(tiny_vlm, mixed):
    path = paths(tiny_vlm)[1]

    def edit(hidden, now):
        if now.prefill:
            now.decided(hidden[:, -1].sum(1))
        return hidden

    inputs = mixed.inputs()
    pixels = inputs["pixel_values"].clone().requires_grad_(True)
    with edited(tiny_vlm.model, tiny_vlm.layout, {path: [edit]}):
        tiny_vlm.model(**inputs)
        with margins_read() as told:
            tiny_vlm.model(**{**inputs, "pixel_values": pixels})
            with bypassed():
                tiny_vlm.model(**inputs)
        tiny_vlm.model(**inputs)
    assert [margins.shape for margins in told] == [(3,)]
    told[0].sum().backward()
    assert pixels.grad.abs().max() > 0


def test_answers_behind_a_prompt_are_no_prompt_where_they_are_scored(tiny_vlm, listen, small_split):
    batch = encode(tiny_vlm, small_split.forget[:2], answers=True, side="right")
    seen = listen(lambda: answer_logprobs(tiny_vlm, small_split.forget[:2]))
    now = seen[0][0]
    assert torch.equal(now.prompt, (batch.labels == -100) & batch.attention_mask.bool())
    for row, last in enumerate(now.last):
        assert batch.labels[row, last] == -100
        assert batch.labels[row, last + 1] != -100
    ((plain, _),) = listen(lambda: tiny_vlm.model(**batch.inputs()))
    assert torch.equal(plain.prompt, plain.tokens)


def test_prompts_of_another_shape_are_refused(tiny_vlm, listen, mixed):
    with pytest.raises(ValueError, match=r"scoring: expected prompts of shape \(3, \d+\), got"):
        listen(lambda: _scored(tiny_vlm, mixed, torch.ones(1, 2, dtype=torch.bool)))
    # The next pass knows nothing of it.
    assert listen(lambda: tiny_vlm.model(**mixed.inputs()))[0][0].prompt.any()


def _scored(vlm, batch, prompt):
    with scoring(prompt):
        vlm.model(**batch.inputs())


def test_scored_answers_are_those_that_generation_would_write(tiny_vlm, small_split):
    """Log-probabilities under an edit agree with a prefill and one pass a token."""
    records = small_split.forget[:3]
    where = {paths(tiny_vlm)[1]: [push(0.3)]}
    with edited(tiny_vlm.model, tiny_vlm.layout, where):
        sums, counts = answer_logprobs(tiny_vlm, records)
        for record, found, count in zip(records, sums, counts, strict=True):
            asked = encode(tiny_vlm, [record], answers=False, side="left")
            told = encode(tiny_vlm, [record], answers=True, side="right")
            answer = told.input_ids[0, -count:]
            with torch.no_grad():
                out = tiny_vlm.model(**asked.inputs(), use_cache=True)
                total = 0.0
                for token in answer:
                    total += out.logits[0, -1].log_softmax(-1)[token].item()
                    out = tiny_vlm.model(
                        input_ids=token[None, None], past_key_values=out.past_key_values
                    )
            assert found == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 5},
        {"num_beams": 3},
        {"do_sample": False, "cache_implementation": "static"},
        {"do_sample": False, "use_cache": False},
    ],
    ids=["greedy", "sampled", "beams", "static cache", "no cache"],
)
def test_generation_prefills_once_and_then_writes(tiny_vlm, listen, mixed, how):
    def write():
        torch.manual_seed(0)
        tiny_vlm.model.generate(**mixed.inputs(), max_new_tokens=4, min_new_tokens=4, **how)

    seen = [now for now, _ in listen(write)]
    assert len(seen) == 4
    beams = how.get("num_beams", 1)
    assert seen[0].prefill
    assert seen[0].has_image.tolist() == [row for row in (True, True, False) for _ in range(beams)]
    tokens = mixed.attention_mask.bool().repeat_interleave(beams, 0)
    assert torch.equal(seen[0].tokens, tokens)
    if how.get("use_cache", True):
        assert [now.prefill for now in seen] == [True, False, False, False]
        assert not any(now.prompt.any() for now in seen[1:])
        assert all(now.tokens.shape == (3 * beams, 1) and now.tokens.all() for now in seen[1:])


def test_a_prompt_that_goes_on_knows_of_the_photo_in_the_cache(tiny_vlm, listen, mixed):
    def talk():
        first = tiny_vlm.model(**mixed.inputs(), past_key_values=DynamicCache(), use_cache=True)
        more = torch.tensor([[60, 61, 62]] * 3)
        mask = torch.cat([mixed.attention_mask, torch.ones_like(more)], 1)
        tiny_vlm.model(input_ids=more, attention_mask=mask, past_key_values=first.past_key_values)

    first, second = (now for now, _ in listen(talk))
    assert second.prefill
    assert not second.image_tokens.any()
    assert torch.equal(second.has_image, first.has_image)
    assert torch.equal(second.prompt, torch.ones(3, 3, dtype=torch.bool))


def test_a_memo_serves_all_layers_of_one_pass(tiny_vlm, listen, mixed):
    seen = listen(lambda: [tiny_vlm.model(**mixed.inputs()) for _ in range(2)], layers=(0, 1, 2))
    first = [now for now, _ in seen]
    assert len({id(now) for now in first[:3]}) == 1
    assert first[0] is not first[3]
    assert first[0].memo is not first[3].memo


def test_the_input_of_a_layer_is_changed_and_nothing_before_it(tiny_vlm, mixed):
    given = {}

    def keep(name):
        def edit(hidden, now):
            given[name] = hidden
            return hidden

        return edit

    first, second, third = paths(tiny_vlm)
    edits = {first: [keep(0)], second: [keep(1), push(2.0), keep(2)], third: [keep(3)]}
    with torch.no_grad():
        states = tiny_vlm.model(**mixed.inputs(), output_hidden_states=True).hidden_states
        with edited(tiny_vlm.model, tiny_vlm.layout, edits):
            tiny_vlm.model(**mixed.inputs())
    assert torch.equal(given[0], states[0])
    assert torch.equal(given[1], states[1])
    where = mixed.attention_mask.bool()[..., None]
    assert torch.equal(given[2], states[1] + 2.0 * where)
    assert not torch.equal(given[3], states[2])


def test_an_edit_of_some_rows_leaves_the_logits_of_the_others_alone(tiny_vlm, mixed):
    plain = logits(tiny_vlm, mixed)
    rows = torch.tensor([True, False, False])
    with edited(tiny_vlm.model, tiny_vlm.layout, {paths(tiny_vlm)[0]: [push(rows=rows)]}):
        changed = logits(tiny_vlm, mixed)
    assert not torch.equal(changed[0], plain[0])
    assert torch.equal(changed[1:], plain[1:])


def test_outputs_are_restored_bit_for_bit(tiny_vlm, mixed):
    plain = logits(tiny_vlm, mixed)
    one = {path: [push()] for path in paths(tiny_vlm)}
    with edited(tiny_vlm.model, tiny_vlm.layout, one):
        once = logits(tiny_vlm, mixed)
        with edited(tiny_vlm.model, tiny_vlm.layout, one):
            twice = logits(tiny_vlm, mixed)
        assert torch.equal(logits(tiny_vlm, mixed), once)
        assert not torch.equal(once, twice)
        with (
            pytest.raises(RuntimeError, match="stop"),
            edited(tiny_vlm.model, tiny_vlm.layout, {paths(tiny_vlm)[2]: [stop]}),
        ):
            logits(tiny_vlm, mixed)
        assert torch.equal(logits(tiny_vlm, mixed), once)
    assert torch.equal(logits(tiny_vlm, mixed), plain)
    assert not torch.equal(once, plain)
    assert not tiny_vlm.model._forward_hooks
    assert not any(module._forward_pre_hooks for module in tiny_vlm.model.modules())


def stop(hidden, now):
    raise RuntimeError("stop")


def test_a_wrong_path_is_named_before_anything_is_touched(tiny_vlm):
    wrong = {paths(tiny_vlm)[0]: [push()], "model.vision_tower": [push()], "nowhere": [push()]}
    with (
        pytest.raises(
            LayoutError,
            match=r"no language layer at 'model.vision_tower', 'nowhere'; expected "
            r"model.language_model.layers.0 to model.language_model.layers.2",
        ),
        edited(tiny_vlm.model, tiny_vlm.layout, wrong),
    ):
        pass
    assert not any(module._forward_pre_hooks for module in tiny_vlm.model.modules())


def test_embeddings_and_lone_language_models_are_refused(tiny_vlm, listen, mixed):
    embed = tiny_vlm.model.get_input_embeddings()
    with pytest.raises(LayoutError, match="expected input_ids, got embeddings"):
        listen(lambda: tiny_vlm.model(inputs_embeds=embed(mixed.input_ids)))
    with pytest.raises(LayoutError, match="expected the whole model to run"):
        listen(lambda: tiny_vlm.model.model(**mixed.inputs()))
