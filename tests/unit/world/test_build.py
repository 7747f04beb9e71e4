import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unsee.data.collate import IGNORED_LABEL, encode
from unsee.data.images import Photo
from unsee.models.load import load
from unsee.world import build, packing
from unsee.world.architecture import fitted, plain_attention
from unsee.world.curriculum import corpus, photo_turns, render, text_turns
from unsee.world.drawn import Drawn
from unsee.world.families import ARCHITECTURES
from unsee.world.folder import _png

TINY = build.Recipe(
    tower_steps=4, tower_batch=8, tower_strangers=20, steps=4, people=2, strangers=2,
    text_rows=1, text_turns=2, bfloat16=False, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture(scope="module")
def tokenizer(architecture):
    return architecture.make_tokenizer(corpus(Drawn(0)))


@pytest.fixture(scope="module")
def fresh(architecture, tokenizer, tmp_path_factory):
    """A freshly initialised model of the world, saved and opened like any other."""
    folder = tmp_path_factory.mktemp("fresh")
    architecture.make_model(tokenizer, 0).save_pretrained(folder)
    architecture.make_processor(tokenizer).save_pretrained(folder)
    return load(folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def cast():
    return Drawn(0).cast(gold=False, strangers=3)


@pytest.fixture(scope="module")
def shown(cast):
    """Pictures of two people and a stranger."""
    return [cast.photos[0][0], cast.photos[7][3], cast.strangers[0]]


@pytest.fixture(scope="module")
def rows(cast, shown):
    """Turns on each picture, and a row without one."""
    rng = random.Random(3)
    return [*(photo_turns(p, rng) for p in shown), text_turns(cast, 4, rng)]


@pytest.fixture(scope="module")
def packed(architecture, tokenizer, rows):
    return packing.Packer(architecture, tokenizer).pack(rows, pictures=3)


@pytest.fixture(scope="module")
def packed_loss(architecture, fresh):
    def loss(packed, shown):
        pixels = build.pixels_of(render(shown))
        with torch.no_grad():
            return packing.packed_loss(architecture, fresh.model, packed, pixels)[0].item()

    return loss


def plain_loss(vlm, rows, shown):
    """Every turn on its own through the collator and the whole model, slowly."""
    photos = [Photo(data=_png(p.stored())) for p in shown] + [None]
    total, count = 0.0, 0
    for turns, photo in zip(rows, photos, strict=True):
        for turn in turns:
            batch = encode(vlm, [replace(turn, image=photo)], answers=True, side="right")
            with torch.no_grad():
                logits = vlm.model(**batch.inputs(), use_cache=False).logits[0, :-1]
            targets = batch.labels[0, 1:]
            counted = targets != IGNORED_LABEL
            losses = torch.nn.functional.cross_entropy(
                logits[counted], targets[counted], reduction="sum"
            )
            total, count = total + losses.item(), count + int(counted.sum())
    return total / count


def test_a_packed_row_gives_the_loss_of_its_turns_one_by_one(
    fresh, packed_loss, packed, rows, shown
):
    assert packed_loss(packed, shown) == pytest.approx(plain_loss(fresh, rows, shown), abs=1e-5)


def test_text_alone_gives_the_loss_of_its_turns_one_by_one(
    architecture, fresh, packed_loss, tokenizer, rows, shown
):
    # With a picture row beside it, since a step always has pictures.
    packed = packing.Packer(architecture, tokenizer).pack([rows[0][:1], rows[3]], pictures=1)
    both = [rows[0][:1], [], [], rows[3]]
    assert packed_loss(packed, shown[:1]) == pytest.approx(plain_loss(fresh, both, shown), abs=1e-5)


@pytest.mark.parametrize(
    "broken", ["another turn", "another lesson", "no picture", "pictures in turn", "positions"]
)
def test_a_turn_that_sees_what_is_not_its_own_or_no_picture_is_another_loss(
    fresh, packed_loss, packed, rows, shown, broken, monkeypatch
):
    """What the test above would miss if random weights gave the same loss whatever is seen."""
    seq = packed.input_ids.shape[1]
    causal = torch.ones(seq, seq, dtype=torch.bool).tril()
    lesson = packed.lessons[:, :, None] == packed.lessons[:, None, :]
    turn = packed.segments[:, :, None] == packed.segments[:, None, :]
    prefix = packed.segments[:, None, :] == 0
    masks = {
        "another turn": lesson & causal,
        "another lesson": (turn | prefix) & causal,
        "no picture": lesson & turn & causal,
    }
    given = shown
    if broken in masks:
        monkeypatch.setattr(packing.Packed, "attention", lambda self: masks[broken][:, None])
    elif broken == "pictures in turn":
        # Rows begin with the longest lesson, so pictures are not met in the order they are given.
        met = packed.lessons[packed.segments == 0].unique_consecutive().tolist()
        pictures = [number for number in met if number < len(shown)]
        assert pictures != sorted(pictures)
        given = [shown[number] for number in pictures]
    else:
        # Counted on from turn to turn.
        packed = replace(packed, places=torch.arange(seq) - lesson.int().argmax(-1))
    assert abs(packed_loss(packed, given) - plain_loss(fresh, rows, shown)) > 1e-4


def test_who_may_look_at_whom_pair_by_pair():
    lessons = torch.tensor([[4, 4, 4, 4, 4, 2, 2, -1]])
    segments = torch.tensor([[0, 0, 1, 1, 2, 0, 1, -1]])
    ids = torch.zeros_like(segments)
    allowed = packing.Packed(ids, ids, lessons, segments, ids).attention()[0, 0]
    tokens = list(zip(lessons[0].tolist(), segments[0].tolist(), strict=True))
    for i, (lesson, turn) in enumerate(tokens):
        for j, (other, theirs) in enumerate(tokens):
            assert allowed[i, j] == (j <= i and other == lesson and theirs in (0, turn))


def test_plain_attention_is_attention_and_ends_with_its_block():
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    attend = torch.nn.functional.scaled_dot_product_attention
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3))
    before = allowed()
    with plain_attention():
        assert allowed()
        plain = attend(query, key, value)
    assert allowed() == before
    torch.testing.assert_close(plain, attend(query, key, value))
    graph = []
    nodes: list[Any] = [plain.grad_fn]
    while nodes:
        node = nodes.pop()
        graph.append(type(node).__name__)
        nodes += [more for more, _ in node.next_functions if more is not None]
    assert not any("Attention" in name for name in graph)
    with pytest.raises(KeyError), plain_attention():
        raise KeyError
    assert allowed() == before


def test_rows_are_filled_with_the_longest_lessons_first(monkeypatch):
    monkeypatch.setattr(packing, "_ROW", 10)
    # What is longer than a row has one to itself; then 9 and 1, 7 and 3, 5 and 4.
    assert packing._rows([4, 7, 1, 9, 5, 12, 3]) == [[5], [3, 2], [1, 6], [4, 0]]
    assert packing._rows([]) == []


def test_a_step_of_the_recipe_is_whole_and_holds_little_padding(architecture, tokenizer):
    cast = Drawn(0).cast(gold=False, strangers=40)
    recipe = build.Recipe()
    pictures, lessons = build.lessons_of(cast, recipe, random.Random(0))
    assert len([p for p in pictures if p.profile]) == recipe.people
    assert len([p for p in pictures if not p.profile]) == recipe.strangers
    assert len(lessons) - len(pictures) == recipe.text_rows * recipe.text_turns
    packed = packing.Packer(architecture, tokenizer).pack(lessons, pictures=len(pictures))
    assert packed.lessons.unique().tolist() == list(range(-1, len(lessons)))
    assert (packed.lessons < 0).float().mean() < 0.1


def test_labels_are_the_answers_alone(architecture, tokenizer, packed, rows):
    for number, turns in enumerate(rows):
        labels = packed.labels[packed.lessons == number]
        said = tokenizer.decode(labels[labels != IGNORED_LABEL])
        assert said == "".join(architecture.answer(turn.answer) for turn in turns)


def test_the_prefix_of_a_picture_row_holds_its_image_tokens(architecture, tokenizer, packed):
    image = packed.input_ids == tokenizer.convert_tokens_to_ids(architecture.image_token)
    counts = [image[packed.lessons == number].sum().item() for number in range(4)]
    assert counts == [architecture.image_tokens] * 3 + [0]
    assert packed.segments[image].eq(0).all()


def test_the_tower_sees_pictures_as_the_image_processor_gives_them(architecture, fresh, shown):
    pictures = [p.stored() for p in shown]
    processed = fresh.processor.image_processor(pictures, return_tensors="pt")
    pixels = build.pixels_of(render(shown))
    with torch.no_grad():
        expected = fresh.model.model.get_image_features(**processed)
        visual, patches = architecture.look(fresh.model, pixels)
        alone = architecture.patches(fresh.model.get_submodule(architecture.tower), pixels)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(visual, torch.cat(list(expected.pooler_output)), **close)
    torch.testing.assert_close(patches, alone, **close)
    assert visual.shape == (3 * architecture.image_tokens, 128)
    assert patches.shape == (3, 36, 128)


def test_patches_are_of_their_own_picture(architecture, fresh, shown):
    """The tower may reorder patches, but within a picture and in all pictures alike."""
    tower = fresh.model.get_submodule(architecture.tower)
    pixels = build.pixels_of(render(shown))
    with torch.no_grad():
        together = architecture.patches(tower, pixels)
        for number in range(3):
            one = architecture.patches(tower, pixels[number : number + 1])[0]
            torch.testing.assert_close(together[number], one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["llava"], indirect=True)
@pytest.mark.parametrize("size", [(16, 16), (92, 112), (48, 48), (31, 77), (300, 200)])
def test_a_photograph_is_fitted_as_the_image_processor_does(fresh, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    processed = fresh.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    pixels = build.pixels_of(np.stack([np.asarray(fitted(picture))]))
    torch.testing.assert_close(pixels, processed, atol=1e-6, rtol=0)


def test_features_that_nobody_knows_are_no_loss():
    torch.manual_seed(0)
    heads = build.FeatureHeads(4, {"hair": 3, "beard": 2})
    patches = torch.randn(2, 5, 4, requires_grad=True)
    unknown = IGNORED_LABEL
    whole = heads.loss(patches, torch.tensor([[2, unknown], [1, unknown]]))
    logits = heads(patches)[0]
    by_hand = -(logits.log_softmax(-1)[0, 2] + logits.log_softmax(-1)[1, 1]) / 2
    torch.testing.assert_close(whole, by_hand)
    one = heads.loss(patches, torch.tensor([[2, 1], [unknown, unknown]]))
    by_hand = -(logits.log_softmax(-1)[0, 2] + heads(patches)[1].log_softmax(-1)[0, 1]) / 2
    torch.testing.assert_close(one, by_hand)
    nothing = heads.loss(patches, torch.full((2, 2), unknown))
    assert nothing.item() == 0
    nothing.backward()


def test_the_model_is_small_and_its_parts_have_the_promised_sizes(fresh):
    config = fresh.model.config
    assert (config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers) == (4, 4)
    parameters = sum(p.numel() for p in fresh.model.parameters())
    assert 2e6 < parameters < 4e6
    # Two bytes each, beside tokenizer and processor.
    assert 2 * parameters < 8e6


class Killed(Exception):  # noqa: N818 - stands for a process that ends, which is no error
    """The process ends here."""


@pytest.fixture(scope="module")
def _small_cast(architecture, tokenizer):
    """The curriculum with two photos a person and few strangers; the tokenizer is made once."""
    whole = Drawn.cast

    def few(source, *, gold, strangers=6):
        cast = whole(source, gold=gold, strangers=strangers)
        return replace(cast, photos=[photos[:2] for photos in cast.photos])

    patch = pytest.MonkeyPatch()
    patch.setattr(type(architecture), "make_tokenizer", lambda self, corpus: tokenizer)
    patch.setattr(Drawn, "cast", few)
    yield
    patch.undo()


def trained(architecture, work, *, gold=False, killed_at=None):
    """Weights after both stages; `killed_at` = (stage, step) ends the process there."""
    work.mkdir(exist_ok=True)
    steps = []

    def progress(stage, step, total, loss):
        steps.append((stage, step))
        assert total == 4
        if (stage, step) == killed_at:
            raise Killed

    build.train_tower(architecture, work, Drawn(0), TINY, progress)
    model, _ = build.train_model(architecture, work, Drawn(0), TINY, progress, gold=gold)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, steps


@pytest.fixture(scope="module")
def finished(architecture, tmp_path_factory, _small_cast):
    """Folder of checkpoints and weights of a build that nothing interrupted."""
    work = tmp_path_factory.mktemp("whole")
    return work, trained(architecture, work)[0]


@pytest.mark.parametrize("killed_at", [("tower", 3), ("base", 1), ("base", 3)])
def test_an_interrupted_build_resumes_to_the_same_bits(architecture, tmp_path, finished, killed_at):
    with pytest.raises(Killed):
        trained(architecture, tmp_path, killed_at=killed_at)
    weights, steps = trained(architecture, tmp_path)
    # From the last checkpoint, made every second step, not from the start.
    assert steps[0] == (killed_at[0], 3 if killed_at[1] > 2 else 1)
    _, whole = finished
    assert weights.keys() == whole.keys()
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_a_finished_stage_is_not_trained_again_and_gold_is_another_model(architecture, finished):
    work, whole = finished
    again, steps = trained(architecture, work)
    assert steps == []
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    gold, steps = trained(architecture, work, gold=True)
    assert steps == [("gold", step) for step in (1, 2, 3, 4)]
    assert not torch.equal(gold["lm_head.weight"], whole["lm_head.weight"])
    files = {path.name for path in work.iterdir()}
    assert files == {"tower.safetensors", "base.safetensors", "gold.safetensors"}


def test_training_changes_every_part(architecture, finished, tokenizer):
    start = architecture.make_model(tokenizer, 0).state_dict()
    _, whole = finished
    still = {name for name in whole if torch.equal(whole[name], start[name])}
    # Positions are fixed numbers.
    assert all(any(part in n for part in (*architecture.unread, "position_ids")) for n in still)


def test_tower_and_projector_learn_at_rates_of_their_own(architecture, fresh):
    layout = fresh.layout
    names = [name for name, _ in fresh.model.named_parameters()]
    vision = [name for name in names if architecture.is_vision(name)]
    assert vision == layout.parameter_names(fresh.model, ["vision"])
    assert (architecture.tower, architecture.projector) == (layout.vision_tower, layout.projector)


def test_jitter_is_seeded_and_stays_in_range():
    pixels = torch.linspace(-1, 1, 4 * 3 * 48 * 48).reshape(4, 3, 48, 48)
    one, two = (build.jitter(pixels, np.random.default_rng(0)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == pixels.shape
    assert one.abs().max() <= 1
    assert not torch.equal(one, pixels)


def test_a_saved_model_opens_in_half_precision_with_its_processor(
    architecture, tmp_path, tokenizer
):
    model, processor = architecture.make_model(tokenizer, 0), architecture.make_processor(tokenizer)
    build.save_model(model, processor, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    vlm = load(tmp_path / "model", device="cpu")
    assert vlm.dtype == torch.float32
    assert vlm.model.config.model_type == architecture.family
    assert vlm.processor.tokenizer.eos_token == tokenizer.eos_token
    assert vlm.model.generation_config.eos_token_id == tokenizer.eos_token_id
