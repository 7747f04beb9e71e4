from collections import OrderedDict

import pytest
import torch

import unsee.models.tiny as tiny
import unsee.teacher as teachers
from unsee.data.augment import variant
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.errors import ArtifactError, ConfigError
from unsee.losses import sequence_logprob
from unsee.models.hooks import captured
from unsee.models.load import load
from unsee.models.tiny import tiny_llava
from unsee.reference import weights_of
from unsee.teacher import Teacher, feature_path, visual_features

# 48 px in patches of 8: 36 patches, and CLIP's class token in the tower.
SHAPES = {
    "projector": (36, 32),
    "vision[0]": (37, 32),
    "vision[-1]": (37, 32),
    "language[0]": (36, 32),
    "language[1]": (36, 32),
}


@pytest.fixture
def photos(small_split):
    """Six different photos."""
    return list(OrderedDict.fromkeys(r.image for r in (*small_split.forget, *small_split.retain)))[
        :6
    ]


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """A model of the same architecture with other weights."""
    return tiny_llava(tmp_path_factory.mktemp("other") / "tiny", seed=9)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def same(before, after):
    return all(torch.equal(before[name], after[name]) for name in before)


def move(vlm):
    """Trains the visual parts to something else."""
    with torch.no_grad():
        for name in vlm.layout.parameter_names(vlm.model, ["vision", "projector"]):
            vlm.model.get_parameter(name).add_(0.3)


def plain(vlm, feature, pictures):
    """Features of pictures by a plain forward pass of the whole model."""
    record = Record("", None, "?", "")
    rows = []
    for photo, picture in pictures:
        asked = [Record("", photo, "?", "") if photo else record]
        batch = encode(vlm, asked, answers=False, side="right", images=[picture])
        with torch.no_grad(), captured(vlm.model, {"it": feature_path(vlm, feature)}) as outputs:
            vlm.model(**batch.inputs())
        found = outputs["it"][0]
        if feature.startswith("language"):
            found = found[batch.input_ids[0] == vlm.model.config.image_token_id]
        rows.append(found.reshape(-1, found.shape[-1]))
    return torch.stack(rows)


@pytest.mark.parametrize("feature", SHAPES)
def test_features_are_those_of_a_plain_pass(feature, tiny_vlm, photos):
    asked = [(photos[0], 0), (photos[1], 3), (photos[0], 1)]
    found = Teacher.of(tiny_vlm, feature).features(tiny_vlm, asked)
    assert found.shape == (3, *SHAPES[feature])
    assert not found.requires_grad
    expected = plain(tiny_vlm, feature, [(p, variant(p, n)) for p, n in asked])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature", ["projector", "vision[0]", "language[1]"])
def test_a_teacher_stays_when_the_student_moves(feature, tiny_vlm, photos):
    asked = [(photo, 0) for photo in photos]
    expected = Teacher.of(tiny_vlm, feature).features(tiny_vlm, asked)
    teacher = Teacher.of(tiny_vlm, feature)
    move(tiny_vlm)
    moved = weights(tiny_vlm)
    assert torch.equal(teacher.features(tiny_vlm, asked), expected)
    assert same(moved, weights(tiny_vlm))
    student = Teacher.of(tiny_vlm, feature).features(tiny_vlm, asked)
    assert (student - expected).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("vision[2]", r"expected vision\[k\] with k below 2, got 'vision\[2\]'"),
        ("vision[-3]", r"expected vision\[k\] with k below 2, got 'vision\[-3\]'"),
        ("language[7]", r"expected language\[k\] with k below 3, got 'language\[7\]'"),
    ],
)
def test_a_feature_that_is_not_there_is_refused(feature, message, tiny_vlm):
    with pytest.raises(ConfigError, match=f"method.feature: {message}"):
        feature_path(tiny_vlm, feature)


@pytest.fixture
def mixed(tiny_vlm, small_split):
    """Rows with and without images, in turns."""
    text = small_split.general[-1]
    records = [small_split.forget[0], text, small_split.retain[0], text, small_split.visible[0]]
    return encode(tiny_vlm, records, answers=True, side="right")


@pytest.mark.parametrize("feature", SHAPES)
def test_rows_without_images_are_left_out_and_logits_are_those_of_the_model(
    feature, tiny_vlm, mixed, small_split
):
    found = visual_features(tiny_vlm, mixed, feature, logits=True)
    assert found.features.requires_grad
    records = (small_split.forget[0], small_split.retain[0], small_split.visible[0])
    expected = plain(tiny_vlm, feature, [(r.image, r.image.open()) for r in records])
    torch.testing.assert_close(found.features.detach(), expected, rtol=1e-4, atol=1e-5)
    whole = tiny_vlm.model(**mixed.inputs(), use_cache=False).logits
    torch.testing.assert_close(
        sequence_logprob(found.logits, found.labels), sequence_logprob(whole, mixed.labels)
    )


@pytest.mark.parametrize("feature", ["projector", "vision[0]"])
def test_visual_features_alone_run_no_language_model(feature, tiny_vlm, mixed):
    with captured(tiny_vlm.model, {"language": tiny_vlm.layout.language_model}) as outputs:
        found = visual_features(tiny_vlm, mixed, feature, logits=False)
        assert outputs == {}
        assert found.logits is None
        torch.testing.assert_close(
            found.features, visual_features(tiny_vlm, mixed, feature, logits=True).features
        )
        assert set(outputs) == {"language"}


@pytest.mark.parametrize("logits", [True, False])
def test_a_batch_without_images_has_no_features(logits, tiny_vlm, small_split):
    batch = encode(tiny_vlm, [small_split.general[-1]], answers=True, side="right")
    found = visual_features(tiny_vlm, batch, "projector", logits=logits)
    assert len(found.features) == 0
    assert (found.logits is not None) == logits


def counted(monkeypatch):
    """Numbers of photos of each pass that a teacher makes."""
    passes = []
    run = Teacher._run

    def counting(self, vlm, photos, forget):
        passes.append(len(photos))
        return run(self, vlm, photos, forget)

    monkeypatch.setattr(Teacher, "_run", counting)
    return passes


def test_features_are_computed_once(tiny_vlm, photos, monkeypatch):
    passes = counted(monkeypatch)
    teacher = Teacher.of(tiny_vlm, "projector")
    first = teacher.features(tiny_vlm, [(photos[0], 0), (photos[1], 0), (photos[0], 0)])
    assert passes == [2]
    assert torch.equal(first[0], first[2])
    move(tiny_vlm)
    again = teacher.features(tiny_vlm, [(photos[1], 0), (photos[0], 1), (photos[0], 0)])
    assert passes == [2, 1]
    assert torch.equal(again[0], first[1])
    assert torch.equal(again[2], first[0])
    assert not torch.equal(again[1], first[0])


def test_the_cache_is_bounded_and_the_oldest_go_first(tiny_vlm, photos, monkeypatch):
    asked = [(photo, number) for photo in photos for number in (0, 1)]
    expected = Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked)
    monkeypatch.setattr(teachers, "_CACHE_BYTES", 3 * expected[0].numel() * 4)
    passes = counted(monkeypatch)
    teacher = Teacher.of(tiny_vlm, "projector")
    torch.testing.assert_close(teacher.features(tiny_vlm, asked), expected)
    assert list(teacher.cache) == [(*key, False) for key in asked[-3:]]
    torch.testing.assert_close(teacher.features(tiny_vlm, asked[-3:]), expected[-3:])
    torch.testing.assert_close(teacher.features(tiny_vlm, asked[:5]), expected[:5])
    assert passes == [12, 5]
    assert list(teacher.cache) == [(*key, False) for key in asked[2:5]]


def test_many_photos_take_several_passes(tiny_vlm, photos, monkeypatch):
    asked = [(photo, 0) for photo in photos[:5]]
    expected = Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked)
    monkeypatch.setattr(teachers, "_PHOTOS_A_PASS", 2)
    passes = counted(monkeypatch)
    torch.testing.assert_close(
        Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked), expected
    )
    assert passes == [2, 2, 1]


def test_forget_weights_give_the_targets_of_forget_photos_only(tiny_vlm, other_folder, photos):
    asked = [(photo, 0) for photo in photos[:2]]
    teacher = Teacher.of(tiny_vlm, "vision[1]")
    own = teacher.features(tiny_vlm, asked)
    other = load(other_folder, dtype="float32", device="cpu")
    teacher.forget_weights = Teacher.of(other, "vision[1]").weights
    expected = Teacher.of(other, "vision[1]").features(other, asked)
    torch.testing.assert_close(teacher.features(tiny_vlm, asked, forget=True), expected)
    assert torch.equal(teacher.features(tiny_vlm, asked), own)
    assert not torch.allclose(own, expected, atol=1e-2)


def test_weights_are_exchanged_inside_the_block_only(tiny_vlm):
    name = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])[0]
    parameter = tiny_vlm.model.get_parameter(name)
    before, place = parameter.detach().clone(), parameter.data_ptr()
    with weights_of(tiny_vlm, {name: before + 1}):
        assert torch.equal(parameter, before + 1)
    assert torch.equal(parameter, before)
    with pytest.raises(KeyboardInterrupt), weights_of(tiny_vlm, {name: before + 1}):
        raise KeyboardInterrupt
    assert torch.equal(parameter, before)
    assert parameter.data_ptr() == place


def test_a_pass_that_fails_leaves_the_student_as_it_was(tiny_vlm, photos, monkeypatch):
    teacher = Teacher.of(tiny_vlm, "projector")
    move(tiny_vlm)
    before = weights(tiny_vlm)

    def failing(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "visual_features", failing)
    with pytest.raises(KeyboardInterrupt):
        teacher.features(tiny_vlm, [(photos[0], 0)])
    assert same(before, weights(tiny_vlm))
    assert not teacher.cache


def test_in_place_puts_the_visual_weights_in_for_whole_passes(tiny_vlm, mixed):
    teacher = Teacher.of(tiny_vlm, "projector")
    with torch.no_grad():
        expected = tiny_vlm.model(**mixed.inputs()).logits
        move(tiny_vlm)
        moved = tiny_vlm.model(**mixed.inputs()).logits
        with teacher.in_place(tiny_vlm):
            assert torch.equal(tiny_vlm.model(**mixed.inputs()).logits, expected)
        assert torch.equal(tiny_vlm.model(**mixed.inputs()).logits, moved)
    assert not torch.equal(moved, expected)


def test_another_checkpoint_teaches(tiny_vlm, other_folder, photos):
    other = load(other_folder, dtype="float32", device="cpu")
    asked = [(photo, 0) for photo in photos[:2]]
    found = Teacher.of(tiny_vlm, "projector", folder=str(other_folder)).features(tiny_vlm, asked)
    assert torch.equal(found, Teacher.of(other, "projector").features(other, asked))
    assert not torch.equal(found, Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked))


def test_a_checkpoint_of_another_shape_is_refused(tiny_vlm, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "WIDTH", 16)
    folder = tiny_llava(tmp_path / "narrow")
    message = (
        "narrow: expected the visual parameters of .*, got another shape or none for "
        r"model\.vision_tower\.\S+; choose a checkpoint of the same architecture"
    )
    with pytest.raises(ArtifactError, match=message):
        Teacher.of(tiny_vlm, "projector", folder=str(folder))


def test_noise_degrades_in_proportion_to_each_tensor(tiny_vlm, photos):
    clean = Teacher.of(tiny_vlm, "projector").weights
    before = weights(tiny_vlm)
    noisy = Teacher.of(tiny_vlm, "projector", noise=0.5, seed=1)
    assert same(before, weights(tiny_vlm))
    for name, tensor in clean.items():
        if tensor.numel() > 500:
            added = (noisy.weights[name] - tensor).std(correction=0)
            assert added.item() == pytest.approx(0.5 * tensor.std().item(), rel=0.15)
    again = Teacher.of(tiny_vlm, "projector", noise=0.5, seed=1)
    assert all(torch.equal(noisy.weights[n], again.weights[n]) for n in clean)
    other = Teacher.of(tiny_vlm, "projector", noise=0.5, seed=2)
    assert not same(noisy.weights, other.weights)
    asked = [(photo, 0) for photo in photos]
    expected = Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked)
    errors = [
        (Teacher.of(tiny_vlm, "projector", noise=noise).features(tiny_vlm, asked) - expected)
        .abs()
        .mean()
        for noise in (0.0, 0.1, 1.0)
    ]
    assert errors[0] == 0
    assert 0 < errors[1] < errors[2]


def test_eight_bits_round_each_row_as_a_slow_loop_does(tiny_vlm, photos):
    clean = Teacher.of(tiny_vlm, "projector").weights
    rounded = Teacher.of(tiny_vlm, "projector", bits=8).weights
    for name, tensor in clean.items():
        if tensor.ndim == 1:
            assert torch.equal(rounded[name], tensor)
            continue
        for row, found in zip(tensor.flatten(1)[:3], rounded[name].flatten(1)[:3], strict=True):
            step = max(abs(x) for x in row.tolist()) / 127
            expected = [round(x / step) * step for x in row.tolist()]
            assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    asked = [(photo, 0) for photo in photos[:2]]
    exact = Teacher.of(tiny_vlm, "projector").features(tiny_vlm, asked)
    found = Teacher.of(tiny_vlm, "projector", bits=8).features(tiny_vlm, asked)
    error = (found - exact).norm() / exact.norm()
    assert 0 < error < 0.05


def test_pruning_silences_the_neurons_of_the_forget_photos_as_a_slow_loop_does(
    tiny_vlm, small_split
):
    teacher = Teacher.of(tiny_vlm, "projector")
    expected = {}
    move(tiny_vlm)
    with teacher.in_place(tiny_vlm):
        for block in tiny_vlm.layout.vision_block_paths(tiny_vlm.model):
            means = []
            for side in (small_split.forget, (*small_split.retain, *small_split.general)):
                shown = list(OrderedDict.fromkeys(r.image for r in side if r.image is not None))
                neurons = plain_neurons(tiny_vlm, f"{block}.mlp.fc1", shown)
                means.append([sum(abs(x) for x in n) / len(n) for n in neurons])
            ratios = [f / k for f, k in zip(*means, strict=True)]
            order = sorted(range(64), key=lambda i: -ratios[i])
            expected[f"{block}.mlp.fc2.weight"] = set(order[:6])
    teacher.pruned_from(tiny_vlm, small_split, 0.1)
    assert teacher.forget_weights is not None
    assert list(teacher.forget_weights) == list(teacher.weights)
    for name, tensor in teacher.forget_weights.items():
        own = teacher.weights[name]
        if name not in expected:
            assert torch.equal(tensor, own)
            continue
        silent = {i for i in range(64) if not tensor[:, i].any()}
        assert silent == expected[name]
        kept = [i for i in range(64) if i not in silent]
        assert torch.equal(tensor[:, kept], own[:, kept])
        assert own.any(0).all()


def plain_neurons(vlm, path, photos):
    """Activations of each neuron over all patches of some photos, one photo at a time."""
    found = []
    for photo in photos:
        batch = encode(vlm, [Record("", photo, "?", "")], answers=False, side="right")
        with torch.no_grad(), captured(vlm.model, {"it": path}) as outputs:
            vlm.model.get_image_features(pixel_values=batch.pixel_values)
        found.append(outputs["it"][0])
    return torch.cat(found).T.tolist()
