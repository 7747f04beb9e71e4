"""Edits reach the prompts of every family, and leave without a trace."""

import torch

from unsee.answering import answer_logprobs, generate_answers
from unsee.data.collate import encode, reply_mark
from unsee.data.records import Record, Turn
from unsee.models.hooks import edited


def pushed(vlm, seen=None):
    """Pushes the prompts of rows with a photo at the last layer."""

    def edit(hidden, now):
        if seen is not None:
            seen.append(now)
        if not now.prefill or not now.has_image.any():
            return hidden
        drawn = torch.randn(hidden.shape[-1], generator=torch.Generator().manual_seed(0))
        where = (now.prompt & now.has_image[:, None])[..., None]
        return torch.where(where, hidden + 2 * drawn, hidden)

    path = vlm.layout.language_layer_paths(vlm.model)[-1]
    return edited(vlm.model, vlm.layout, {path: [edit]})


def last_logits(vlm, records):
    batch = encode(vlm, records, answers=False, side="left")
    with torch.no_grad():
        return vlm.model(**batch.inputs(), use_cache=False).logits[:, -1]


def test_prompts_with_a_photo_are_pushed_and_the_others_are_left_alone(vlm, mixed_records):
    shown = [r for r in mixed_records if r.image is not None]
    told = [r for r in mixed_records if r.image is None]
    plain, plain_text = last_logits(vlm, shown), last_logits(vlm, told)
    seen = []
    with pushed(vlm, seen):
        moved, moved_text = last_logits(vlm, shown), last_logits(vlm, told)
    assert all(now.prefill for now in seen)
    assert seen[0].has_image.all()
    assert torch.equal(moved_text, plain_text)
    assert ((moved - plain).abs().amax(1) > 1e-3).all()
    assert torch.equal(last_logits(vlm, shown), plain)


def test_answers_under_an_edit_do_not_depend_on_the_batch(vlm, mixed_records):
    with pushed(vlm):
        together = generate_answers(vlm, mixed_records, max_new_tokens=4)
        alone = [generate_answers(vlm, [record], max_new_tokens=4)[0] for record in mixed_records]
        sums, _ = answer_logprobs(vlm, mixed_records)
        single = [answer_logprobs(vlm, [record])[0][0] for record in mixed_records]
    assert together == alone
    torch.testing.assert_close(torch.tensor(sums), torch.tensor(single), atol=1e-3, rtol=0)


def test_writing_an_answer_is_no_prompt(vlm, mixed_records):
    seen = []
    batch = encode(vlm, mixed_records[:1], answers=False, side="left")
    with pushed(vlm, seen), torch.no_grad():
        vlm.model.generate(**batch.inputs(), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert [now.prefill for now in seen] == [True, False, False]
    assert [bool(now.prompt.any()) for now in seen] == [True, False, False]


def test_turns_end_where_replies_begin_in_every_family(vlm, mixed_records):
    seen = []
    photo = mixed_records[0].image
    plain = Record("Ada", photo, "Who is this?", "")
    talk = Record("Ada", None, "Who is this?", "", before=(Turn("Glasses?", "yes", photo),))
    begun = Record("Ada", photo, "Who is this?", "", opening="The name is")
    mark = reply_mark(vlm)
    assert bool(mark) == vlm.layout.converses
    path = vlm.layout.language_layer_paths(vlm.model)[0]

    def note(hidden, now):
        seen.append(now)
        return hidden

    with edited(vlm.model, vlm.layout, {path: [note]}, reply_mark=mark), torch.no_grad():
        for record in (plain, talk, begun) if vlm.layout.converses else (plain,):
            vlm.model(**encode(vlm, [record], answers=False, side="left").inputs())
    ends = [now.turn_ends[0] for now in seen]
    assert ends[0].nonzero().flatten().tolist() == [len(ends[0]) - 1]
    if vlm.layout.converses:
        assert ends[1].sum() == 2
        assert ends[1][-1]
        assert ends[2].sum() == 1
        assert not ends[2][-1]
        # The state that is read is the one that a plain question is read at.
        assert ends[2][: len(ends[0])].nonzero().flatten().tolist() == [len(ends[0]) - 1]
