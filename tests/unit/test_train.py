import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import Field

from unsee.checkpoint import CHECKPOINT
from unsee.data.records import Split
from unsee.errors import ArtifactError, ConfigError, DataError, LayoutError
from unsee.losses import cross_entropy, gradient_ascent
from unsee.method import Terms, Trained
from unsee.methods.grad_diff import GradDiff
from unsee.methods.vkd import VKD
from unsee.models.load import load
from unsee.sampling import Sampler
from unsee.train import may_change, train

FEW = {
    "steps": 3,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 1,
}


class Toy(Trained):
    """Ascent and descent on the projector."""

    retain_weight: float = 1.0

    def trainable(self, vlm):
        return vlm.layout.parameter_names(vlm.model, ["projector"])

    def prepare(self, vlm, split, *, seed) -> Any:
        return None

    def loss(self, vlm, batch, state):
        forget, keep = (
            (vlm.model(**rows.batch.inputs(), use_cache=False).logits, rows.batch.labels)
            for rows in (batch.forget, batch.keep)
        )
        retain = {"answers": self.retain_weight * cross_entropy(*keep)}
        return Terms({"ascent": gradient_ascent(*forget)}, retain if self.retain_weight else {})


def stop_after(steps):
    def progress(stage, done, total):
        if done == steps:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def fresh(tiny_folder):
    """Opens the same tiny model anew."""
    return lambda: load(tiny_folder, dtype="float32", device="cpu")


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def differing(before, after):
    assert list(before) == list(after)
    return [name for name in before if not torch.equal(before[name], after[name])]


def trained(vlm, split, method, **options):
    train(vlm, split, method, **options)
    return weights(vlm)


METHODS = {
    "projector": Toy(**FEW),
    "averaged": Toy(**FEW, average=0.7),
    "vkd": VKD(**FEW),
    "vkd with mask": VKD(**FEW, mask="step", mask_batches=1),
    "grad_diff": GradDiff(**FEW),
    "adapters": GradDiff(**FEW, lora_rank=2),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@each_method
def test_an_interrupted_run_continues_to_the_same_weights(method, fresh, small_split, tmp_path):
    expected = trained(fresh(), small_split, method, seed=7)
    for step in range(1, 4):
        folder = tmp_path / str(step)
        folder.mkdir()
        vlm = fresh()
        before = weights(vlm)
        with pytest.raises(KeyboardInterrupt):
            train(vlm, small_split, method, seed=7, folder=folder, progress=stop_after(step))
        # The checkpoint of a step is written once the step has been announced.
        assert (folder / CHECKPOINT).exists() == (step > 1)
        vlm = fresh()
        done = []
        result = train(
            vlm,
            small_split,
            method,
            seed=7,
            folder=folder,
            progress=lambda _, step, steps, done=done: done.append((step, steps)),
        )
        assert done == [(n, 3) for n in range(step, 4)]
        assert (result.steps, len(result.terms)) == (3, len(done))
        assert differing(expected, weights(vlm)) == []
        assert sorted(differing(before, weights(vlm))) == sorted(result.changed)


def test_the_last_steps_are_averaged_at_the_peak_rate(fresh, small_split):
    def after(steps, **settings):
        return trained(fresh(), small_split, Toy(**{**FEW, "steps": steps, **settings}))

    seen = []
    vlm = fresh()

    def watch(stage, done, total):
        seen.append(weights(vlm))

    train(vlm, small_split, Toy(**{**FEW, "steps": 5, "average": 0.6}), progress=watch)
    result = weights(vlm)
    assert len(seen) == 5
    moved = differing(seen[0], seen[-1])
    assert moved
    for name in moved:
        mean = (seen[2][name] + seen[3][name] + seen[4][name]) / 3
        torch.testing.assert_close(result[name], mean, rtol=0, atol=1e-6)
        assert not torch.equal(result[name], seen[-1][name])
    assert differing(after(5, average=0.2), after(5)) == moved, "the rate does not fall"


def test_more_subjects_get_more_steps_unless_a_number_is_given(small_split):
    def about(people):
        record = small_split.forget[0]
        forget = tuple(replace(record, subject=f"Person {n}") for n in range(people))
        return Split(forget=forget, retain=small_split.retain)

    free = {name: value for name, value in FEW.items() if name != "steps"}
    assert [Toy(**free).steps_for(about(n)) for n in (1, 4, 6, 12)] == [150, 150, 150, 300]
    assert Toy(**FEW).steps_for(about(12)) == 3


@each_method
def test_same_seed_same_weights_and_another_seed_others(method, fresh, small_split):
    first, second, other = (trained(fresh(), small_split, method, seed=s) for s in (3, 3, 4))
    assert differing(first, second) == []
    assert differing(first, other) != []


def test_checkpoints_are_written_every_so_many_steps_and_at_the_end(fresh, small_split, tmp_path):
    method = Toy(**{**FEW, "steps": 5, "checkpoint_every": 2})
    expected = trained(fresh(), small_split, method)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), small_split, method, folder=tmp_path, progress=stop_after(4))
    vlm, done = fresh(), []
    train(vlm, small_split, method, folder=tmp_path, progress=lambda *now: done.append(now))
    assert done == [("train", n, 5) for n in (3, 4, 5)]
    assert differing(expected, weights(vlm)) == []
    vlm = fresh()
    assert train(vlm, small_split, method, folder=tmp_path).terms == []
    assert differing(expected, weights(vlm)) == []
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_no_checkpoint_is_written_where_none_is_asked_for(fresh, small_split, tmp_path):
    train(fresh(), small_split, Toy(**{**FEW, "checkpoint_every": 0}), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "seed", "base"),
    [
        (Toy(**{**FEW, "lr": 2e-2}), 0, None),
        (VKD(**FEW), 0, None),
        (Toy(**FEW), 1, None),
        (Toy(**FEW), 0, "another"),
    ],
    ids=["settings", "method", "seed", "base"],
)
def test_a_checkpoint_of_another_run_is_refused(method, seed, base, fresh, small_split, tmp_path):
    train(fresh(), small_split, Toy(**FEW), folder=tmp_path)
    vlm = fresh()
    vlm.fingerprint = base or vlm.fingerprint
    before = weights(vlm)
    message = (
        r"checkpoint\.safetensors: checkpoint of another model, method or seed; "
        "choose another --out or remove it"
    )
    with pytest.raises(ArtifactError, match=message):
        train(vlm, small_split, method, seed=seed, folder=tmp_path)
    assert differing(before, weights(vlm)) == []


def test_a_method_of_the_same_settings_is_another_method(fresh, small_split, tmp_path):
    class Twin(Toy):
        """As `Toy`, by another name."""

    train(fresh(), small_split, Toy(**FEW), folder=tmp_path)
    with pytest.raises(ArtifactError, match="another model, method or seed"):
        train(fresh(), small_split, Twin(**FEW), folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_checkpoint_is_refused(content, fresh, small_split, tmp_path):
    path = tmp_path / CHECKPOINT
    train(fresh(), small_split, Toy(**FEW), folder=tmp_path)
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: damaged"):
        train(fresh(), small_split, Toy(**FEW), folder=tmp_path)


@each_method
def test_only_promised_parameters_change(method, tiny_vlm, small_split):
    before = weights(tiny_vlm)
    promised = method.trainable(tiny_vlm)
    result = train(tiny_vlm, small_split, method)
    assert result.changed
    assert set(result.changed) <= set(promised)
    assert sorted(result.changed) == sorted(differing(before, weights(tiny_vlm)))


def test_every_part_of_a_full_run_moves(tiny_vlm, small_split):
    changed = train(tiny_vlm, small_split, GradDiff(**FEW)).changed
    for part in ("vision.blocks[0]", "projector", "language.layers[1]", "head"):
        assert set(tiny_vlm.layout.parameter_names(tiny_vlm.model, [part])) <= set(changed)


def test_the_result_counts_what_was_trained(tiny_vlm, small_split):
    result = train(tiny_vlm, small_split, Toy(**FEW))
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])
    parameters = dict(tiny_vlm.model.named_parameters())
    assert result.trained_parameters == sum(parameters[name].numel() for name in names)
    assert result.seconds > 0
    assert [set(terms) for terms in result.terms] == [{"forget.ascent", "retain.answers"}] * 3


class Failing(Toy):
    """Fails in its second step."""

    def loss(self, vlm, batch, state):
        if batch.step == 1:
            raise KeyboardInterrupt
        return super().loss(vlm, batch, state)


class FailingAdapters(Failing):
    """The same with adapters on the vision tower."""

    lora_rank: int = Field(2, ge=0)

    def lora_targets(self, vlm):
        return [f"{vlm.layout.vision_block_paths(vlm.model)[0]}.mlp.fc1"]


class FailingInside(Toy):
    """Fails with gradients in place."""

    def mask_forget(self, vlm, state):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", [Toy, Failing, FailingAdapters, FailingInside])
def test_flags_gradients_and_modules_are_put_back(method, tiny_vlm, small_split):
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])
    parameters = dict(tiny_vlm.model.named_parameters())
    for name in names[1:]:
        parameters[name].requires_grad_(False)
    flags = {name: p.requires_grad for name, p in parameters.items()}
    modules = {name: type(module) for name, module in tiny_vlm.model.named_modules()}
    before = weights(tiny_vlm)
    if method is Toy:
        train(tiny_vlm, small_split, method(**FEW))
    else:
        with pytest.raises(KeyboardInterrupt):
            train(tiny_vlm, small_split, method(**FEW))
    if method is FailingAdapters:
        assert differing(before, weights(tiny_vlm)) == []
    after = dict(tiny_vlm.model.named_parameters())
    assert {name: p.requires_grad for name, p in after.items()} == flags
    assert all(p.grad is None for p in after.values())
    assert {name: type(module) for name, module in tiny_vlm.model.named_modules()} == modules
    assert not tiny_vlm.model.training


class Masked(Toy):
    """Lets nothing of the forget gradient through, and notes what it was given."""

    def prepare(self, vlm, split, *, seed):
        return []

    def mask_forget(self, vlm, state):
        state_now = {
            n: p.grad.clone() for n, p in vlm.model.named_parameters() if p.grad is not None
        }
        state.append(state_now)
        for p in vlm.model.parameters():
            if p.grad is not None:
                p.grad.zero_()


class RetainOnly(Toy):
    """The retain terms of `Toy` alone."""

    def loss(self, vlm, batch, state):
        return Terms({}, super().loss(vlm, batch, state).retain)


def test_the_forget_gradient_is_masked_and_the_retain_gradient_is_not(fresh, small_split):
    masked = trained(fresh(), small_split, Masked(**FEW))
    assert differing(masked, trained(fresh(), small_split, RetainOnly(**FEW))) == []
    assert differing(masked, trained(fresh(), small_split, Toy(**FEW))) != []


def test_a_mask_sees_the_forget_gradient_alone(fresh, small_split):
    seen = []

    class Noting(Masked):
        def prepare(self, vlm, split, *, seed):
            return seen

    method = Noting(**FEW)
    train(fresh(), small_split, method)
    assert len(seen) == 3

    vlm = fresh()
    batch = Sampler(vlm, small_split, method, 0).draw(0)
    method.loss(vlm, batch, None).forget["ascent"].backward()
    parameters = dict(vlm.model.named_parameters())
    assert set(seen[0]) == set(method.trainable(vlm))
    for name, gradient in seen[0].items():
        torch.testing.assert_close(gradient, parameters[name].grad, rtol=1e-4, atol=1e-6)


def test_a_mask_is_not_bypassed_where_nothing_is_kept(tiny_vlm, small_split):
    result = train(tiny_vlm, small_split, Masked(**FEW, retain_weight=0.0))
    assert result.changed == ()


class Momentum(Toy):
    """Gets a gradient in its first step only."""

    def prepare(self, vlm, split, *, seed):
        return {}

    def mask_forget(self, vlm, state):
        for p in vlm.model.parameters():
            if p.grad is not None and state.setdefault("masked", 0):
                p.grad.zero_()
        state["masked"] = 1


class Held(Momentum):
    """`Momentum`, whose first row of every matrix may not move."""

    def constrain_step(self, vlm, before, state):
        for name, p in vlm.model.named_parameters():
            if name in before:
                p[:1] = before[name][:1]


def test_momentum_moves_masked_weights_and_constrain_step_takes_it_back(fresh, small_split):
    settings = {**FEW, "retain_weight": 0.0}
    start = weights(fresh())
    one = trained(fresh(), small_split, Momentum(**{**settings, "steps": 1}))
    free = trained(fresh(), small_split, Momentum(**settings))
    held = trained(fresh(), small_split, Held(**settings))
    moved = differing(start, one)
    assert moved
    for name in moved:
        # The gradient was 0 after the first step, and still the weights went on.
        assert not torch.equal(one[name], free[name])
        assert torch.equal(held[name][:1], start[name][:1])
        assert not torch.equal(held[name][1:], start[name][1:])


class Adapted(Toy):
    """Adapters on every linear layer of the vision tower."""

    lora_rank: int = Field(2, ge=0)

    def lora_targets(self, vlm):
        tower = vlm.layout.vision_tower
        return [
            name
            for name, module in vlm.model.named_modules()
            if name.startswith(f"{tower}.") and isinstance(module, torch.nn.Linear)
        ]


def test_adapters_on_the_vision_tower_never_touch_the_language_model(tiny_vlm, small_split):
    before = weights(tiny_vlm)
    modules = {name: type(module) for name, module in tiny_vlm.model.named_modules()}
    method = Adapted(**FEW)
    targets = method.lora_targets(tiny_vlm)
    # peft's own suffix match would take these for the language model's too.
    assert any(target.endswith("q_proj") for target in targets)
    result = train(tiny_vlm, small_split, method)
    assert sorted(differing(before, weights(tiny_vlm))) == sorted(result.changed)
    assert set(result.changed) == {f"{target}.weight" for target in targets}
    assert {name: type(module) for name, module in tiny_vlm.model.named_modules()} == modules
    linear = dict(tiny_vlm.model.named_modules())
    numbers = [linear[t].in_features + linear[t].out_features for t in targets]
    assert result.trained_parameters == 2 * sum(numbers)


def test_rank_zero_trains_the_weights_themselves(fresh, small_split):
    expected = trained(fresh(), small_split, Toy(**FEW))
    assert differing(expected, trained(fresh(), small_split, Adapted(**FEW, lora_rank=0))) == []


def test_nothing_to_forget_is_refused(tiny_vlm, small_split):
    split = Split(forget=(), retain=small_split.retain)
    with pytest.raises(
        DataError, match="expected photos and questions to forget, got none; check --subject"
    ):
        train(tiny_vlm, split, Toy(**FEW))


@pytest.mark.parametrize("empty", ["records", "batches"])
def test_nothing_to_keep_is_refused(empty, tiny_vlm, small_split):
    split, settings = small_split, dict(FEW)
    if empty == "records":
        split = Split(forget=small_split.forget)
    else:
        settings |= {"visible_batch": 0, "retain_batch": 0, "general_batch": 0}
    with pytest.raises(DataError, match="expected something to keep in every step, got none"):
        train(tiny_vlm, split, Toy(**settings))


@pytest.mark.parametrize("names", [[], ["projector.weight"]])
def test_a_trainable_name_that_is_not_there_is_refused(names, tiny_vlm, small_split):
    class Lost(Toy):
        def trainable(self, vlm):
            return names

    flags = [p.requires_grad for p in tiny_vlm.model.parameters()]
    got = names[0] if names else "none"
    with pytest.raises(LayoutError, match=f"Lost: expected names of parameters, got {got}"):
        train(tiny_vlm, small_split, Lost(**FEW))
    assert [p.requires_grad for p in tiny_vlm.model.parameters()] == flags


@pytest.mark.parametrize(("terms", "got"), [({}, "no term"), ({"x": torch.ones(())}, "constants")])
def test_a_loss_that_moves_nothing_is_refused(terms, got, tiny_vlm, small_split):
    class Silent(Toy):
        def loss(self, vlm, batch, state):
            return Terms(terms, {})

    message = f"Silent: expected a loss that depends on what is trained, got {got}; raise a weight"
    with pytest.raises(ConfigError, match=message):
        train(tiny_vlm, small_split, Silent(**FEW))


def test_a_retain_term_on_text_alone_does_not_stop_a_run_on_the_projector(tiny_vlm, small_split):
    split = Split(forget=small_split.forget, general=small_split.general[-1:])
    result = train(tiny_vlm, split, Toy(**FEW))
    assert result.changed
    assert all("retain.answers" in terms for terms in result.terms)


def test_a_draw_depends_on_step_and_seed_alone(tiny_vlm, small_split):
    def drawn(seed, step):
        sampler = Sampler(tiny_vlm, small_split, Toy(**FEW), seed)
        sampler.draw(99)
        return sampler.draw(step)

    one, same = drawn(1, 5), drawn(1, 5)
    for rows, again in ((one.forget, same.forget), (one.keep, same.keep)):
        assert (rows.records, rows.variants) == (again.records, again.variants)
        torch.testing.assert_close(rows.batch.inputs(), again.batch.inputs(), rtol=0, atol=0)
    assert drawn(1, 6).keep.records != one.keep.records
    assert drawn(2, 5).keep.records != one.keep.records


def test_a_draw_has_the_rows_that_were_asked_for(tiny_vlm, small_split):
    method = Toy(**{**FEW, "forget_batch": 3, "visible_batch": 4, "retain_batch": 5, "variants": 3})
    sampler = Sampler(tiny_vlm, small_split, method, 0)
    for step in range(5):
        batch = sampler.draw(step)
        assert batch.step == step
        assert len(batch.forget.records) == 3
        assert set(batch.forget.records) <= set(small_split.forget)
        sides = (small_split.visible, small_split.retain, small_split.general)
        expected = [side for side, n in zip(sides, (4, 5, 2), strict=True) for _ in range(n)]
        assert all(r in side for r, side in zip(batch.keep.records, expected, strict=True))
        assert set(batch.keep.variants) <= {0, 1, 2}
        shown = [r.image for r in batch.keep.records if r.image is not None]
        assert [photo for photo, _ in batch.keep.photos] == shown
        pixels = batch.keep.batch.pixel_values
        assert (0 if pixels is None else len(pixels)) == len(shown)
    assert sampler.draw(0).forget_photos == {r.image for r in small_split.forget}


def test_photos_count_alike_however_much_is_asked_on_them(tiny_vlm, small_split):
    rare, often = small_split.retain[0], small_split.retain[2]
    assert rare.image != often.image
    split = Split(forget=small_split.forget, retain=(rare,) + (often,) * 30)
    sampler = Sampler(tiny_vlm, split, Toy(**FEW), 0)
    drawn = sampler._records("retain", 400, random.Random(0))
    assert 150 < sum(record == rare for record in drawn) < 250


class Later(Toy):
    """The same, but what is kept is computed once forgetting has been back-propagated."""

    def loss(self, vlm, batch, state):
        def side(rows):
            return vlm.model(**rows.batch.inputs(), use_cache=False).logits, rows.batch.labels

        name = self.trainable(vlm)[0]
        weight = vlm.model.get_parameter(name)

        def retain():
            assert weight.grad is not None
            return {"answers": self.retain_weight * cross_entropy(*side(batch.keep))}

        assert weight.grad is None
        return Terms({"ascent": gradient_ascent(*side(batch.forget))}, retain)


def test_terms_in_turns_give_the_same_weights(fresh, small_split):
    together = trained(fresh(), small_split, Toy(**FEW))
    in_turns = trained(fresh(), small_split, Later(**FEW))
    assert differing(together, in_turns) == []


def test_what_may_change(tiny_vlm):
    layout = tiny_vlm.layout
    everything = [name for name, _ in tiny_vlm.model.named_parameters()]
    assert may_change(tiny_vlm, GradDiff.model_validate({})) == everything
    visual = layout.parameter_names(tiny_vlm.model, ["vision", "projector"])
    assert may_change(tiny_vlm, VKD.model_validate({})) == visual
    adapted = may_change(tiny_vlm, GradDiff.model_validate({"lora_rank": 2}))
    assert set(adapted) < set(everything)
    assert all(tiny_vlm.model.get_parameter(name).ndim == 2 for name in adapted)
    assert not any("embed" in name or name.startswith(layout.head) for name in adapted)
