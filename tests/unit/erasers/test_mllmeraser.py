"""Directions pair by pair, gates from states, and every way to ask for what cannot be done."""

import re
from dataclasses import replace

import pytest
import torch

from unsee import states as states_module
from unsee.data.records import Record
from unsee.erasers.directions import RECALL, REFUSED, Contrast, direction, perturbed
from unsee.erasers.gates import logistic_gate, rank_one_gate, unit_rms
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.rows import Moments
from unsee.errors import ConfigError, DataError
from unsee.states import last_states

FEW = Contrast(kind="multimodal", pairs=2, iterations=2)


def eraser_settings(**settings):
    return MLLMEraser.model_validate(settings)


def state(vlm, record, layer, **more):
    return last_states(vlm, [record], [layer], **more)[0, 0]


def test_states_are_those_of_the_last_prompt_token_one_by_one(tiny_vlm, small_split):
    records = (*small_split.forget[:2], small_split.general[-1], small_split.visible[0])
    together = last_states(tiny_vlm, records, [0, 2], variants=[0, 1, 0, 0])
    assert together.shape == (4, 2, 32)
    for row, record in enumerate(records):
        alone = last_states(tiny_vlm, [record], [0, 2], variants=[int(row == 1)])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    unmoved = last_states(tiny_vlm, records[1:2], [2])[0, 0]
    assert not torch.allclose(together[1, 1], unmoved, atol=1e-3)


def test_the_output_of_a_layer_is_the_input_of_the_next(tiny_vlm, small_split):
    records = small_split.forget[:3]
    outputs = last_states(tiny_vlm, records, [0, 1], at="output")
    torch.testing.assert_close(outputs, last_states(tiny_vlm, records, [1, 2]))


def test_the_multimodal_direction_is_a_mean_over_pairs(tiny_vlm, small_split):
    """Perturbed photo and recall prompt, minus the same photo and a prompt that is refused."""
    r = direction(tiny_vlm, small_split, "Ada", [1, 2], FEW, seed=7)
    photos = [small_split.general[0].image, small_split.general[1].image]
    recall = [Record("", p, *RECALL[n]) for n, p in enumerate(photos)]
    _, pixels = perturbed(tiny_vlm, recall, FEW, seed=7)
    for place, layer in enumerate((1, 2)):
        total = torch.zeros(32)
        for number, photo in enumerate(photos):
            refused = Record("", photo, "Tell me a secret.", "")
            total += state(tiny_vlm, recall[number], layer, pixels=pixels[number : number + 1])
            total -= state(tiny_vlm, refused, layer)
        torch.testing.assert_close(r[place], total / 2, atol=1e-4, rtol=1e-4)


def test_the_controls_leave_one_half_of_the_contrast_out(tiny_vlm, small_split):
    split = replace(small_split, general=small_split.general[:-1])
    photos = [record.image for record in split.general[:2]]

    def found(kind, at):
        return direction(tiny_vlm, split, "Ada", [at], replace(FEW, kind=kind), seed=1)[0]

    def asked(question, photo):
        return state(tiny_vlm, Record("", photo, question, ""), 1)

    text = sum(asked(RECALL[n][0], None) - asked(REFUSED[n], None) for n in range(2)) / 2
    torch.testing.assert_close(found("text", 1), text, atol=1e-5, rtol=1e-4)
    recall = [Record("", p, *RECALL[n]) for n, p in enumerate(photos)]
    _, pixels = perturbed(tiny_vlm, recall, FEW, seed=1)
    image = sum(
        state(tiny_vlm, recall[n], 1, pixels=pixels[n : n + 1]) - asked(RECALL[n][0], photos[n])
        for n in range(2)
    )
    torch.testing.assert_close(found("image", 1), image / 2, atol=1e-4, rtol=1e-3)


def test_the_subject_s_direction_asks_the_same_of_strangers(tiny_vlm, small_split):
    r = direction(tiny_vlm, small_split, "Bo", [1], replace(FEW, kind="subject"), seed=0)[0]
    mine = [record for record in small_split.forget if record.subject == "Bo"]
    strangers = [record.image for record in small_split.general[:3]]
    total = torch.zeros(32)
    for number, record in enumerate(mine):
        total += state(tiny_vlm, record, 1)
        total -= state(tiny_vlm, replace(record, image=strangers[number % 3]), 1)
    torch.testing.assert_close(r, total / len(mine), atol=1e-5, rtol=1e-4)


def test_a_random_direction_is_as_long_and_seeded(tiny_vlm, small_split):
    measured = direction(tiny_vlm, small_split, "Ada", [1, 2], FEW, seed=0)
    drawn = replace(FEW, kind="random")
    first, again = (direction(tiny_vlm, small_split, "Ada", [1, 2], drawn, seed=0) for _ in "ab")
    torch.testing.assert_close(first.norm(dim=1), measured.norm(dim=1))
    assert torch.equal(first, again)
    assert (torch.cosine_similarity(first, measured) < 0.9).all()


def test_a_model_that_does_not_refuse_is_told_the_way_out(tiny_vlm, small_split):
    with pytest.raises(
        ConfigError,
        match=r"direction image: expected recall and refusal to differ by 2% of the states' "
        r"length, got 0.0% at a layer; .* seems not to refuse anything, .*"
        r"--set method.direction=subject",
    ):
        direction(tiny_vlm, small_split, "Ada", [1], replace(FEW, kind="image", budget=0.0), seed=0)


def test_targets_come_from_a_file(tiny_vlm, small_split, tmp_path):
    file = tmp_path / "targets.txt"
    file.write_text("a green cat\n\na red dog\n")
    own = direction(tiny_vlm, small_split, "Ada", [1], replace(FEW, targets=file), seed=0)
    assert not torch.equal(own, direction(tiny_vlm, small_split, "Ada", [1], FEW, seed=0))
    for wrong, match in (
        (tmp_path / "none.txt", r"targets .*none.txt: expected a text file with a sentence a line"),
        (tmp_path / "empty.txt", r"targets .*empty.txt: expected a sentence a line, got an empty"),
    ):
        (tmp_path / "empty.txt").write_text("\n")
        with pytest.raises(ConfigError, match=match):
            direction(tiny_vlm, small_split, "Ada", [1], replace(FEW, targets=wrong), seed=0)


def test_a_split_without_a_photo_to_measure_on_is_refused(tiny_vlm, small_split):
    blind = replace(small_split, general=(), retain=())
    with pytest.raises(DataError, match="expected photos of strangers or of people to keep"):
        direction(tiny_vlm, blind, "Ada", [1], FEW, seed=0)


def test_published_weights_are_the_rank_one_gate_of_every_layer(tiny_vlm, small_split):
    # Few rows leave most directions without energy: with a lower share rounding would choose.
    settings = {"gate": "published", "direction": "subject", "energy": 0.8, "gamma": 0.5}
    method = eraser_settings(variants=1, **settings)
    eraser = method.fit(tiny_vlm, small_split, seed=0)
    assert eraser.plan.layers == (1, 2)
    mine = [record for record in small_split.forget if record.subject == "Bo"]
    kept = [r for r in (*small_split.retain, *small_split.general) if r.image is not None]
    for place, layer in enumerate((1, 2)):
        forget = last_states(tiny_vlm, mine, [layer])[:, 0].double()
        retain = last_states(tiny_vlm, kept, [layer])[:, 0].double()
        w = rank_one_gate(
            forget.T @ forget, forget.sum(0), retain.T @ retain, energy=0.8, ridge=0.5
        )
        torch.testing.assert_close(eraser.weights[1, place], w.float(), atol=1e-4, rtol=1e-3)


def test_sums_over_states_do_not_depend_on_the_batch_and_keep_no_state(tiny_vlm, small_split):
    records = list(small_split.retain)
    variants = [number % 3 for number in range(len(records))]
    states = last_states(tiny_vlm, records, [0, 2], variants=variants).double()
    assert len(states) == 8
    found = Moments.of(tiny_vlm, records, variants, [0, 2])
    assert (found.rows, found.gram.dtype, found.total.dtype) == (8, torch.float64, torch.float64)
    for place in range(2):
        gram, total = torch.zeros(32, 32, dtype=torch.float64), torch.zeros(32)
        for state in states[:, place]:
            gram = gram + state[:, None] * state[None]
            total = total + state
        torch.testing.assert_close(found.gram[place], gram)
        torch.testing.assert_close(found.total[place], total)


def test_the_published_gate_lets_states_go_batch_by_batch(tiny_vlm, small_split, monkeypatch):
    """What is read at once, kept for the fit and left in the cache has no row a prompt."""
    method = eraser_settings(gate="published", direction="subject", variants=2, energy=0.8)
    expected = method.fit(tiny_vlm, small_split, seed=0)
    batches = states_module.state_batches

    def two_by_two(*args, **more):
        for rows, states in batches(*args, **{**more, "batch_size": 2}):
            assert len(rows) <= 2
            yield rows, states

    monkeypatch.setattr("unsee.erasers.rows.state_batches", two_by_two)
    cached = {}

    def remembered(vlm, what, probe, make):
        cached.update(make())
        return dict(cached)

    monkeypatch.setattr("unsee.erasers.rows.remembered", remembered)
    kept = method.keep(tiny_vlm, small_split, seed=0)
    assert isinstance(kept, Moments)
    assert {name: tensor.shape for name, tensor in cached.items()} == {
        "gram": (2, 32, 32),
        "total": (2, 32),
    }
    again = method.fit(tiny_vlm, small_split, seed=0, kept=kept)
    torch.testing.assert_close(again.weights, expected.weights, atol=1e-4, rtol=1e-3)
    with pytest.raises(ConfigError, match=r"kept: expected what keep\(\) gave with the same gate"):
        eraser_settings(direction="subject").fit(tiny_vlm, small_split, kept=kept)


def test_calibrated_weights_are_the_logistic_gate_of_states_at_unit_root_mean_square(
    tiny_vlm, small_split
):
    method = eraser_settings(direction="subject", variants=1)
    eraser = method.fit(tiny_vlm, small_split, seed=0)
    layer = eraser.plan.layers[0]

    def states(records, name=None):
        shown = [r for r in records if r.image is not None and name in (None, r.subject)]
        return unit_rms(last_states(tiny_vlm, shown, [layer])[:, 0])

    keep = [states(small_split.visible, "Bo"), states(small_split.retain)]
    keep.append(states(small_split.general))
    weights = [torch.full((len(s),), c / len(s)) for s, c in zip(keep, (1, 2, 1), strict=True)]
    w, b = logistic_gate(
        states(small_split.forget, "Bo"), torch.cat(keep), torch.cat(weights), ridge=method.ridge
    )
    torch.testing.assert_close(eraser.weights[1, 0], w.float(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(eraser.biases[1, 0], b.float(), atol=1e-4, rtol=1e-3)
    assert len(eraser.scores[1][0]) == sum(map(len, keep))


def test_states_to_keep_are_collected_once_and_used_again(tiny_vlm, small_split, monkeypatch):
    method = eraser_settings(direction="subject", variants=2)
    kept = method.keep(tiny_vlm, small_split, seed=0)
    expected = method.fit(tiny_vlm, small_split, seed=0)
    monkeypatch.setattr(MLLMEraser, "keep", None)
    again = method.fit(tiny_vlm, small_split, seed=0, kept=kept)
    assert all(torch.equal(t, again.tensors()[n]) for n, t in expected.tensors().items())


def test_adding_a_subject_does_not_refit_the_others(tiny_vlm, small_split):
    method = eraser_settings(direction="subject", variants=2)
    both = method.fit(tiny_vlm, small_split, seed=0)
    for place, name in enumerate(small_split.subjects):
        mine = tuple(r for r in small_split.forget if r.subject == name)
        alone = method.fit(tiny_vlm, replace(small_split, forget=mine, subjects=(name,)), seed=0)
        torch.testing.assert_close(alone.weights[0], both.weights[place], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(alone.directions[0], both.directions[place])


def test_scope_both_has_a_gate_for_questions_by_name(tiny_vlm, small_split):
    def named(records):
        return tuple(
            replace(r, question=r.question.replace("this", "this person"), topic="")
            for r in records
        )

    split = replace(small_split, forget=named(small_split.forget), retain=named(small_split.retain))
    eraser = eraser_settings(direction="subject", variants=1).fit(tiny_vlm, split, scope="both")
    assert eraser.weights.shape == (2, 2, 32)
    assert eraser.plan.scope == "both"
    assert set(eraser.notes[0]) == {"photo", "text"}
    with pytest.raises(DataError, match="scope both needs questions about people to keep"):
        eraser_settings().fit(tiny_vlm, small_split, scope="both")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {"layers": (1, 3, 7)},
            r"method.layers: expected numbers from 0 to 2, got 3, 7; .* has 3 language layers",
        ),
        ({"layers": (-1,)}, r"method.layers: expected numbers from 0 to 2, got -1"),
        (
            {"layers": (2,), "skipped_layers": (2,)},
            "method.layers: expected a layer to steer, got none",
        ),
    ],
)
def test_layers_out_of_range_are_refused(tiny_vlm, small_split, settings, match):
    with pytest.raises(ConfigError, match=match):
        eraser_settings(**settings).fit(tiny_vlm, small_split)


def test_too_little_to_keep_is_refused_before_the_model_runs(tiny_vlm, small_split, monkeypatch):
    monkeypatch.setattr(tiny_vlm.model, "forward", None)
    for kept in ((), small_split.retain[:4]):
        few = replace(small_split, retain=kept)
        with pytest.raises(
            DataError,
            match=r"expected at least 8 questions on photos of two or more people to keep, got "
            rf"{len(kept)} of {min(1, len(kept))}; give more with --retain",
        ):
            eraser_settings().fit(tiny_vlm, few)


def test_a_subject_without_photos_is_refused(tiny_vlm, small_split):
    told = tuple(replace(r, image=None) if r.subject == "Bo" else r for r in small_split.forget)
    with pytest.raises(DataError, match="expected questions on photos of Bo, got none"):
        eraser_settings().fit(tiny_vlm, replace(small_split, forget=told))


def test_people_in_forget_and_retain_are_refused(small_split):
    with pytest.raises(DataError, match="expected different people in forget and retain, got Ada"):
        replace(small_split, retain=(*small_split.retain, *small_split.forget[:1]))


def others(small_split, count):
    """The split with so many strangers, and so two people and as many others."""
    photos = [r.image for r in small_split.retain]
    strangers = tuple(
        Record(f"stranger {n}", photos[n % len(photos)], "Who is this?", "I do not know.")
        for n in range(count)
    )
    return replace(small_split, general=(*strangers, small_split.general[-1]))


def test_with_few_others_the_threshold_has_a_ceiling_and_the_notes_say_so(tiny_vlm, small_split):
    method = eraser_settings(direction="subject", variants=1)
    few = method.fit(tiny_vlm, others(small_split, 17), seed=0)
    assert few.ceilings.isfinite().all()
    assert (few.thresholds <= few.ceilings).all()
    assert few.notes[0]["photo"]["kept_people"] == 19
    assert re.fullmatch(
        r"not known from 19 others, give 20 or more; on prompts about these, held out, [\d.]+%",
        few.notes[0]["photo"]["false_fire"],
    )
    many = method.fit(tiny_vlm, others(small_split, 18), seed=0)
    assert many.ceilings.isinf().all()
    assert many.notes[0]["photo"]["false_fire"] == "as asked for"
