"""The fitted eraser on a tiny model: h' = h - s g r, by hand, in batches, joined and left again."""

from dataclasses import replace

import pytest
import torch

from unsee.answering import answer_logprobs, generate_answers
from unsee.data.collate import encode
from unsee.data.records import Record, Turn
from unsee.erasers.gates import share_of_each, threshold, unit_rms
from unsee.erasers.protocol import erased
from unsee.erasers.steering import Plan, Steering
from unsee.errors import ArtifactError, LayoutError
from unsee.models.hooks import edited
from unsee.models.passes import asking, margins_read
from unsee.states import last_states

PLAN = Plan(
    family="llava",
    depth=3,
    layers=(1, 2),
    gate="calibrated",
    positions="all",
    strength=1.5,
    scope="visual",
    false_fire=0.0025,
)
LOW = torch.linspace(-2, -1, 50)


def steering(vlm, subjects=("Ada",), plan=PLAN, seed=0, weights=None, bias=-1e9):
    """Random directions; gates that never fire, unless weights and bias say so."""
    generator = torch.Generator().manual_seed(seed)
    count, gates = len(subjects), 2 if plan.scope == "both" else 1
    if weights is None:
        weights = torch.zeros(count, gates, 32)
    return Steering(
        subjects=subjects,
        base=vlm.fingerprint,
        plan=plan,
        directions=torch.randn(count, len(plan.layers), 32, generator=generator),
        weights=weights,
        biases=torch.full((count, gates), float(bias)),
        scores=tuple((LOW,) * gates for _ in subjects),
    )


@pytest.fixture
def mixed(small_split):
    """Two photos of Ada, one of Bo, and a question without a photo."""
    return (*small_split.forget[:3:2], small_split.forget[4], small_split.general[-1])


@pytest.fixture
def firing(tiny_vlm, mixed):
    """An eraser of two subjects, the gates of which fire on the first and the third record."""
    states = unit_rms(last_states(tiny_vlm, mixed, [1])[:, 0])
    centred = states - states.mean(0)
    weights = torch.stack([torch.linalg.pinv(centred)[:, row] for row in (0, 2)])
    # 3 / 4 on its own row and -1 / 4 on the others, before the mean is taken off.
    bias = -(weights @ states.mean(0))
    eraser = steering(tiny_vlm, ("Ada", "Bo"), weights=weights[:, None])
    return replace(eraser, biases=bias[:, None], scores=((LOW / 100,), (LOW / 100,)))


def inputs_of_layers(vlm, records, eraser=None):
    """What layers 1 and 2 are given, behind the eraser."""
    found = {}
    paths = vlm.layout.language_layer_paths(vlm.model)

    def note(name):
        def edit(hidden, now):
            found[name] = hidden
            return hidden

        return edit

    batch = encode(vlm, records, answers=False, side="left")
    with (
        erased(vlm, [eraser] if eraser is not None else []),
        edited(vlm.model, vlm.layout, {paths[layer]: [note(layer)] for layer in (1, 2)}),
        torch.no_grad(),
    ):
        logits = vlm.model(**batch.inputs(), use_cache=False).logits
    return batch, found[1], found[2], logits


def test_rows_whose_gate_fires_are_pushed_by_their_subject_s_direction(tiny_vlm, firing, mixed):
    batch, plain, plain_next, plain_logits = inputs_of_layers(tiny_vlm, mixed)
    _, moved, moved_next, logits = inputs_of_layers(tiny_vlm, mixed, firing)
    for row, who in enumerate((0, None, 1, None)):
        expected = plain[row].clone()
        if who is not None:
            for position, token in enumerate(batch.attention_mask[row].tolist()):
                if token:
                    expected[position] -= 1.5 * firing.directions[who, 0]
        torch.testing.assert_close(moved[row], expected, atol=1e-5, rtol=0)
        if who is None:
            assert torch.equal(moved_next[row], plain_next[row])
            assert torch.equal(logits[row], plain_logits[row])
        else:
            assert not torch.equal(logits[row], plain_logits[row])


def test_every_layer_follows_the_decision_of_the_first(tiny_vlm, firing, mixed):
    """A push at layer 2 alone, where layer 1's is switched off, is the difference there."""
    still = firing.directions.clone()
    still[:, 0] = 0
    only = replace(firing, directions=still)
    _, _, plain, _ = inputs_of_layers(tiny_vlm, mixed)
    batch, _, moved, _ = inputs_of_layers(tiny_vlm, mixed, only)
    where = batch.attention_mask[0].bool()
    expected = plain[0] - 1.5 * still[0, 1] * where[:, None]
    torch.testing.assert_close(moved[0], expected, atol=1e-5, rtol=0)


def test_the_last_token_alone_is_pushed_where_that_is_asked_for(tiny_vlm, firing, mixed):
    last = replace(firing, plan=replace(firing.plan, positions="last"))
    _, plain, _, _ = inputs_of_layers(tiny_vlm, mixed)
    _, moved, _, _ = inputs_of_layers(tiny_vlm, mixed, last)
    assert torch.equal(moved[:, :-1], plain[:, :-1])
    torch.testing.assert_close(moved[0, -1], plain[0, -1] - 1.5 * firing.directions[0, 0])
    assert torch.equal(moved[1], plain[1])


def test_the_published_gate_is_linear_unbounded_and_summed(tiny_vlm, mixed):
    plan = replace(PLAN, gate="published", strength=0.3)
    generator = torch.Generator().manual_seed(3)
    weights = 0.1 * torch.randn(2, 2, 32, generator=generator)
    eraser = steering(tiny_vlm, ("Ada", "Bo"), plan, weights=weights, bias=0)
    eraser = replace(eraser, scores=())
    batch, plain, _, _ = inputs_of_layers(tiny_vlm, mixed)
    _, moved, _, _ = inputs_of_layers(tiny_vlm, mixed, eraser)
    shown = [True, True, True, False]
    for row, has_photo in enumerate(shown):
        push = torch.zeros(32)
        for subject in range(2):
            gate = sum(
                plain[row, -1, at].item() * weights[subject, 0, at].item() for at in range(32)
            )
            push += 0.3 * gate * eraser.directions[subject, 0]
        where = batch.attention_mask[row].bool()[:, None]
        expected = plain[row] - push * where * has_photo
        torch.testing.assert_close(moved[row], expected, atol=1e-4, rtol=0)


def test_without_a_photo_nothing_is_looked_at_unless_the_scope_says_so(tiny_vlm, mixed):
    text = mixed[-1:]
    _, _, _, plain = inputs_of_layers(tiny_vlm, text)
    always = steering(tiny_vlm, bias=1e9)
    _, _, _, logits = inputs_of_layers(tiny_vlm, text, always)
    assert torch.equal(logits, plain)
    both = steering(tiny_vlm, plan=replace(PLAN, scope="both"), bias=1e9)
    _, _, _, logits = inputs_of_layers(tiny_vlm, text, both)
    assert not torch.equal(logits, plain)


def test_prompts_without_a_photo_have_a_gate_of_their_own(tiny_vlm, mixed):
    both = steering(tiny_vlm, plan=replace(PLAN, scope="both"))
    both = replace(both, biases=torch.tensor([[-1e9, 1e9]]))
    _, _, _, plain = inputs_of_layers(tiny_vlm, mixed)
    _, _, _, logits = inputs_of_layers(tiny_vlm, mixed, both)
    assert torch.equal(logits[:3], plain[:3])
    assert not torch.equal(logits[3], plain[3])


def test_answers_do_not_depend_on_the_batch_and_the_prefill_decides(tiny_vlm, firing, mixed):
    with erased(tiny_vlm, [firing]):
        together = generate_answers(tiny_vlm, mixed, max_new_tokens=6)
        alone = [generate_answers(tiny_vlm, [r], max_new_tokens=6)[0] for r in mixed]
    plain = generate_answers(tiny_vlm, mixed, max_new_tokens=6)
    assert together == alone
    assert (together[1], together[3]) == (plain[1], plain[3])
    assert together[0] != plain[0]


def test_leaving_restores_bit_for_bit_also_nested_and_after_an_exception(tiny_vlm, firing, mixed):
    def logits():
        return inputs_of_layers(tiny_vlm, mixed)[3]

    plain = logits()
    other = steering(tiny_vlm, ("Cy",), seed=4, bias=1e9)
    with erased(tiny_vlm, [firing]):
        outer = logits()
        with erased(tiny_vlm, [other]):
            assert not torch.equal(logits(), outer)
        assert torch.equal(logits(), outer)
        with pytest.raises(RuntimeError, match="stop"), erased(tiny_vlm, [other]):
            raise RuntimeError("stop")
        assert torch.equal(logits(), outer)
    assert torch.equal(logits(), plain)
    assert not torch.equal(outer, plain)


def test_joined_erasers_act_as_one_in_any_order(tiny_vlm, firing, mixed):
    parts = [
        replace(
            firing,
            subjects=(name,),
            directions=firing.directions[[at]],
            weights=firing.weights[[at]],
            biases=firing.biases[[at]],
            scores=(firing.scores[at],),
        )
        for at, name in enumerate(firing.subjects)
    ]
    expected = inputs_of_layers(tiny_vlm, mixed, firing)[3]
    batch = encode(tiny_vlm, mixed, answers=False, side="left")
    for order in (parts, parts[::-1]):
        with erased(tiny_vlm, order), torch.no_grad():
            found = tiny_vlm.model(**batch.inputs(), use_cache=False).logits
        assert torch.equal(found, expected)


def test_two_gates_that_fire_push_once(tiny_vlm, mixed):
    """The one further above its threshold is followed."""
    both = steering(tiny_vlm, ("Ada", "Bo"))
    both = replace(both, biases=torch.tensor([[5.0], [9.0]]))
    bo = steering(tiny_vlm, ("Ada", "Bo"))
    bo = replace(bo, biases=torch.tensor([[-1e9], [9.0]]))
    assert torch.equal(
        inputs_of_layers(tiny_vlm, mixed, both)[3], inputs_of_layers(tiny_vlm, mixed, bo)[3]
    )


def test_thresholds_follow_from_the_number_of_subjects(tiny_vlm):
    one = steering(tiny_vlm)
    assert one.joined([]) is one
    assert one.thresholds.item() == pytest.approx(threshold(LOW, 0.0025))
    ten = one.joined([steering(tiny_vlm, (f"subject {n}",)) for n in range(9)])
    expected = threshold(LOW, share_of_each(0.0025, 10))
    assert ten.thresholds.flatten().tolist() == pytest.approx([expected] * 10)
    assert expected > one.thresholds.item()


def test_no_eraser_at_all_is_no_change(tiny_vlm, mixed):
    plain = inputs_of_layers(tiny_vlm, mixed)[3]
    with erased(tiny_vlm, []) as same:
        assert same is tiny_vlm
        assert torch.equal(inputs_of_layers(tiny_vlm, mixed)[3], plain)


def test_an_eraser_of_another_base_is_refused(tiny_vlm):
    other = replace(steering(tiny_vlm), base="0123456789abcdef")
    with (
        pytest.raises(
            ArtifactError,
            match=r"eraser of Ada: fitted on base 0123456789abcdef, got "
            rf"{tiny_vlm.fingerprint} \(.*\); load the model it was fitted on",
        ),
        erased(tiny_vlm, [other]),
    ):
        pass


def test_erasers_of_different_layouts_or_plans_are_refused(tiny_vlm):
    one = steering(tiny_vlm)
    deep = replace(one, subjects=("Bo",), plan=replace(PLAN, layers=(2,), strength=2.0))
    with (
        pytest.raises(
            ArtifactError,
            match=r"erasers of Ada and Bo: expected one base and one plan, got "
            r"layers \(1, 2\) and \(2,\); strength 1.5 and 2.0; fit one of them again",
        ),
        erased(tiny_vlm, [one, deep]),
    ):
        pass
    other = replace(one, plan=replace(PLAN, depth=32))
    with (
        pytest.raises(
            LayoutError, match="eraser of Ada: made for llava of 32 layers, got llava of 3"
        ),
        erased(tiny_vlm, [other]),
    ):
        pass


def test_a_subject_in_two_erasers_is_refused(tiny_vlm):
    with (
        pytest.raises(ArtifactError, match="expected each subject once, got Ada in two"),
        erased(tiny_vlm, [steering(tiny_vlm), steering(tiny_vlm, seed=1)]),
    ):
        pass


@pytest.mark.parametrize("gate", ["calibrated", "published"])
def test_each_row_is_pushed_with_the_strength_of_its_form(tiny_vlm, mixed, firing, gate):
    """A quarter for choices, a half for open questions, and s = 1.5 for what is not named."""
    strengths = (("choice", 0.25), ("open", 0.5))
    weights = firing.weights.expand(-1, 2, -1) if gate == "published" else firing.weights
    plan = replace(firing.plan, gate=gate, layers=(1, 2))
    biases = firing.biases.expand(-1, weights.shape[1])
    eraser = replace(firing, plan=plan, weights=weights.contiguous(), biases=biases)
    shown = mixed[:1]

    def moved(strength, form):
        with_it = replace(eraser, plan=replace(plan, strength=strength, task_strengths=()))
        given = with_it if form is None else replace(eraser, plan=told)
        with erased(tiny_vlm, [given]), asking([form or "open"]):
            return last_states(tiny_vlm, shown, [2])[0, 0]

    told = replace(plan, task_strengths=strengths)
    for form, strength in (("choice", 0.25), ("open", 0.5), ("cloze", 1.5)):
        torch.testing.assert_close(moved(1.5, form), moved(strength, None))
    assert not torch.allclose(moved(1.5, "choice"), moved(1.5, "open"), atol=1e-3)


def test_records_are_answered_and_scored_with_the_strength_of_their_form(tiny_vlm, mixed, firing):
    plan = replace(firing.plan, task_strengths=(("caption", 1e-6), ("open", 80.0)))
    eraser = replace(firing, plan=plan)
    asked = [mixed[0], replace(mixed[0], form="caption")]
    plain = answer_logprobs(tiny_vlm, asked)[0]
    with erased(tiny_vlm, [eraser]):
        scored = answer_logprobs(tiny_vlm, asked)[0]
    assert abs(scored[0] - plain[0]) > 1e-2
    assert scored[1] == pytest.approx(plain[1], abs=1e-3)


def test_forms_go_with_rows_that_are_repeated_and_fit_no_others(tiny_vlm, mixed):
    batch = encode(tiny_vlm, mixed[:2], answers=False, side="left")
    found = []
    edits = {
        tiny_vlm.layout.language_layer_paths(tiny_vlm.model)[1]: [
            lambda hidden, now: found.append(now.forms) or hidden
        ]
    }
    with edited(tiny_vlm.model, tiny_vlm.layout, edits), torch.no_grad():
        with asking(["open", "choice"]):
            tiny_vlm.model(**batch.inputs())
            tiny_vlm.model.generate(**batch.inputs(), num_beams=2, max_new_tokens=1)
        tiny_vlm.model(**batch.inputs())
        with asking(["open"] * 3), pytest.raises(ValueError, match="expected 3 rows, got 2"):
            tiny_vlm.model(**batch.inputs())
    assert found == [("open", "choice"), ("open", "open", "choice", "choice"), ()]


def test_tensors_and_table_are_all_there_is(tiny_vlm, firing):
    import json

    table = json.loads(json.dumps(firing.table()))
    again = Steering.restored(table, firing.tensors())
    assert again.table() == firing.table()
    assert again.plan == firing.plan
    for name, tensor in firing.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)
    assert torch.equal(again.thresholds, firing.thresholds)
    for name, values in firing.respond().items():
        torch.testing.assert_close(again.respond()[name], values)


@pytest.mark.parametrize(("gate", "scope"), [("published", "visual"), ("calibrated", "both")])
def test_a_subject_at_the_size_of_llava_1_5_7b_takes_at_most_1_1_mb(gate, scope):
    """32 layers of 4,096, all steered; with the scores of 3,000 states that a gate should let be.

    The d x d matrices of the released code take 2.1 GB.
    """
    plan = replace(PLAN, depth=32, layers=tuple(range(32)), gate=gate, scope=scope)
    gates = 32 if gate == "published" else 2
    scores = (torch.linspace(-3, 0, 3000),) * 2
    eraser = Steering(
        subjects=("Ada",),
        base="",
        plan=plan,
        directions=torch.zeros(1, 32, 4096),
        weights=torch.zeros(1, gates, 4096),
        biases=torch.zeros(1, gates),
        scores=(scores,) if gate == "calibrated" else (),
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in eraser.tensors().values())
    assert 0.5e6 < size <= 1.1e6


@pytest.fixture
def talk(small_split):
    """The photo in the first turn and a question in the second; and an answer that has begun."""
    photo = small_split.forget[0].image
    return (
        Record("Ada", None, "Who is this?", "", before=(Turn("Glasses?", "yes", photo),)),
        Record("Ada", photo, "Who is this?", "", opening="The name is"),
    )


def turns_of(vlm, record):
    """States at the ends of a record's turns at layer 1, in their order."""
    path = vlm.layout.language_layer_paths(vlm.model)[1]
    found = []

    def note(hidden, now):
        found.append((now, hidden))
        return hidden

    batch = encode(vlm, [record], answers=False, side="left")
    from unsee.data.collate import reply_mark

    with (
        edited(vlm.model, vlm.layout, {path: [note]}, reply_mark=reply_mark(vlm)),
        torch.no_grad(),
    ):
        vlm.model(**batch.inputs(), use_cache=False)
    ((now, hidden),) = found
    return hidden[0][now.turn_ends[0]], now


def fires_on(vlm, wanted, others, **more):
    """An eraser whose gate fires on one state and not on others."""
    states = unit_rms(torch.cat([wanted[None], others]))
    centred = states - states.mean(0)
    weights = torch.linalg.pinv(centred)[:, 0]
    eraser = steering(vlm, weights=weights[None, None], **more)
    bias = -(weights @ states.mean(0))
    return replace(eraser, biases=bias[None, None], scores=((LOW / 100,),))


def pushed(vlm, record, eraser):
    """Which tokens of a prompt are moved at the input of layer 1."""
    _, plain, _, _ = inputs_of_layers(vlm, [record])
    _, moved, _, _ = inputs_of_layers(vlm, [record], eraser)
    return (moved - plain).abs().amax(-1)[0] > 1e-4


@pytest.mark.parametrize("number", [0, 1])
def test_each_turn_decides_about_its_own_tokens(tiny_vlm, talk, number):
    ends, now = turns_of(tiny_vlm, talk[0])
    eraser = fires_on(tiny_vlm, ends[number], ends[[1 - number]])
    first = int(now.turn_ends[0].int().argmax())
    places = torch.arange(now.tokens.shape[1])
    wanted = places <= first if number == 0 else places > first
    assert torch.equal(pushed(tiny_vlm, talk[0], eraser), wanted & now.prompt[0])
    # As published: the last prompt token decides about all of them.
    last = replace(eraser, plan=replace(eraser.plan, reads="last"))
    expected = now.prompt[0] if number == 1 else torch.zeros_like(now.prompt[0])
    assert torch.equal(pushed(tiny_vlm, talk[0], last), expected)


def test_what_has_begun_goes_with_the_turn_it_answers(tiny_vlm, talk):
    (end,), now = turns_of(tiny_vlm, talk[1])
    last = last_states(tiny_vlm, talk[1:], [1])[0]
    eraser = fires_on(tiny_vlm, end, last)
    assert not now.turn_ends[0, -1]
    assert torch.equal(pushed(tiny_vlm, talk[1], eraser), now.prompt[0])
    last = replace(eraser, plan=replace(eraser.plan, reads="last"))
    assert not pushed(tiny_vlm, talk[1], last).any()


def test_a_turn_behind_the_cache_is_read_like_one_in_a_whole_prompt(tiny_vlm, talk):
    """The question of the second turn, asked on the cache of the first, gives the same answer."""
    from transformers import DynamicCache

    ends, now = turns_of(tiny_vlm, talk[0])
    eraser = fires_on(tiny_vlm, ends[1], ends[[0]])
    batch = encode(tiny_vlm, talk[:1], answers=False, side="left")
    cut = int(now.turn_ends[0].int().argmax()) + 1
    with erased(tiny_vlm, [eraser]), torch.no_grad():
        whole = tiny_vlm.model(**batch.inputs(), use_cache=False).logits[0, -1]
        cache = DynamicCache()
        inputs = {
            name: value[:, :cut] if value.shape[:2] == batch.input_ids.shape else value
            for name, value in batch.inputs().items()
        }
        tiny_vlm.model(**inputs, past_key_values=cache, use_cache=True)
        parts = tiny_vlm.model(input_ids=batch.input_ids[:, cut:], past_key_values=cache)
    torch.testing.assert_close(parts.logits[0, -1], whole, atol=1e-4, rtol=0)


def test_margins_are_told_of_the_turn_that_is_asked_last(tiny_vlm, firing, mixed, talk):
    def read(eraser, records):
        batch = encode(tiny_vlm, records, answers=False, side="left")
        with erased(tiny_vlm, [eraser]), margins_read() as told, torch.no_grad():
            tiny_vlm.model(**batch.inputs(), use_cache=False)
        (margins,) = told
        return margins

    found = read(firing, mixed)
    assert [bool(margin > 0) for margin in found] == [True, False, True, False]
    assert found[3] == -torch.inf
    ends, _ = turns_of(tiny_vlm, talk[0])
    for number, wanted in ((0, False), (1, True)):
        eraser = fires_on(tiny_vlm, ends[number], ends[[1 - number]])
        assert bool(read(eraser, talk[:1]) > 0) == wanted
    linear = replace(firing, plan=replace(PLAN, gate="published", layers=(1,)), scores=())
    states = last_states(tiny_vlm, mixed, [1])[:, 0]
    expected = (states @ firing.weights[:, 0].T).amax(1)
    torch.testing.assert_close(read(linear, mixed)[:3], expected[:3], atol=1e-4, rtol=0)


def test_an_eraser_of_before_turns_were_read_is_restored(tiny_vlm, firing):
    table = firing.table()
    del table["plan"]["reads"]
    assert Steering.restored(table, firing.tensors()).plan == firing.plan
