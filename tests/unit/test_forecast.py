import shutil

import pytest
import torch

import unsee.forecast
from unsee.errors import ConfigError, UnseeError
from unsee.forecast import Sample, combined, depth_of, forecast, sample
from unsee.methods.grad_diff import GradDiff
from unsee.methods.vkd import VKD
from unsee.models.load import load, outline

FEW = {
    "steps": 20,
    "forget_batch": 1,
    "visible_batch": 1,
    "retain_batch": 1,
    "general_batch": 1,
    "variants": 1,
}
METHOD = VKD.model_validate(FEW)
GRAD_DIFF = GradDiff.model_validate(FEW)
ADAPTERS = GradDiff.model_validate({**FEW, "lora_rank": 2})


@pytest.fixture
def weightless(tiny_folder, tmp_path):
    """The tiny model's folder without its weights."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def took(prepare_s, step_s, prepare_flops, step_flops, rss):
    memory = {"peak_rss_mb": rss, "peak_gpu_mb": None}
    return Sample(prepare_s, step_s, prepare_flops, step_flops, 5, memory)


def test_an_outline_has_the_shapes_of_the_model_and_none_of_its_weights(tiny_folder, weightless):
    opened, blank = load(tiny_folder, device="cpu"), outline(weightless, device="cpu")
    assert {n: p.shape for n, p in opened.model.named_parameters()} == {
        n: p.shape for n, p in blank.model.named_parameters()
    }
    assert blank.dtype == torch.float32
    shapes = outline(weightless, device="meta")
    assert all(p.is_meta for p in shapes.model.parameters())
    assert depth_of(shapes) == depth_of(opened)


def test_a_slice_has_the_first_layers_and_blocks(weightless):
    sliced = outline(weightless, depth=(2, 1), device="cpu")
    assert depth_of(sliced) == (2, 1)


def test_the_whole_from_slices_by_hand(weightless):
    skeleton = outline(weightless, device="meta")
    start = took(2.0, 0.5, 10, 100, 600.0)
    # Two layers more cost 40 multiplications a step and 30 MB; the whole has eight more.
    deeper = took(9.0, 9.0, 10, 140, 630.0)
    # A block more costs 5 in preparation, 15 a step and 10 MB; the whole has three more.
    taller = took(9.0, 9.0, 15, 115, 610.0)
    found = combined(
        start, [(deeper, 4.0), (taller, 3.0)], steps=20, skeleton=skeleton, first=(2, 1)
    )
    assert found.prepare_s == pytest.approx(2.0 * (10 + 15) / 10)
    step = 0.5 * (100 + 4 * 40 + 3 * 15) / 100
    assert found.wall_s == pytest.approx(5.0 + 20 * step)
    assert found.peak_rss_mb == pytest.approx(600 + 4 * 30 + 3 * 10)
    assert found.peak_gpu_mb is None


def test_a_model_that_is_its_own_slice_is_not_extrapolated(weightless):
    skeleton = outline(weightless, device="meta")
    start = took(2.0, 0.5, 0, 100, 600.0)
    found = combined(start, [], steps=20, skeleton=skeleton, first=(3, 2))
    assert (found.prepare_s, found.wall_s, found.peak_rss_mb) == (2.0, 12.0, 600.0)


def test_steps_and_parameters(weightless, tiny_folder, small_split, monkeypatch):
    depths = []

    def in_place(place, split, method, seed, depth):
        depths.append(depth)
        return took(1.0, 0.1, 1, 1, 100.0)

    monkeypatch.setattr(unsee.forecast, "_in_a_process", in_place)
    found = forecast(str(weightless), small_split, METHOD)
    vlm = load(tiny_folder, device="cpu")
    assert found.parameters == sum(p.numel() for p in vlm.model.parameters())
    assert (found.steps, found.depth, depths) == (20, (3, 2), [(3, 2)])
    assert found.trained_parameters == 5


def test_a_deeper_feature_takes_a_deeper_slice(weightless, small_split, monkeypatch):
    depths = []

    def in_place(place, split, method, seed, depth):
        depths.append(depth)
        if depth[0] < 3:
            raise ConfigError("no such layer")
        return took(1.0, 0.1, 1, 1, 100.0)

    monkeypatch.setattr(unsee.forecast, "_in_a_process", in_place)
    monkeypatch.setattr(unsee.forecast, "_FIRST", 1)
    forecast(str(weightless), small_split, METHOD)
    assert depths == [(1, 1), (2, 2), (3, 2)]


@pytest.mark.parametrize("method", [METHOD, GRAD_DIFF, ADAPTERS])
def test_a_slice_is_really_run_and_the_whole_counted(method, weightless, small_split, monkeypatch):
    monkeypatch.setattr(unsee.forecast, "_STEPS", 2)
    depths = [(3, 2)] if isinstance(method, VKD) else [(1, 2), (2, 2), (3, 2)]
    *slices, whole = (sample(str(weightless), small_split, method, 0, depth) for depth in depths)
    assert whole.step_s > 0
    assert whole.memory["peak_rss_mb"]
    if isinstance(method, VKD):
        assert whole.prepare_flops > 0
        return
    one, two = slices
    skeleton = outline(weightless, device="meta")
    found = combined(one, [(two, 2.0)], steps=1, skeleton=skeleton, first=(1, 2))
    assert found.trained_parameters == whole.trained_parameters
    assert whole.step_flops == 2 * two.step_flops - one.step_flops


def test_too_little_memory_is_one_line(small_split, monkeypatch):
    class Pool:
        def __init__(self, **named):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def submit(self, *given):
            raise torch.OutOfMemoryError

    monkeypatch.setattr(unsee.forecast, "ProcessPoolExecutor", Pool)
    with pytest.raises(UnseeError) as caught:
        unsee.forecast._in_a_process("llava", small_split, METHOD, 0, (4, 3))
    assert str(caught.value) == (
        "llava: 4 of its layers and 3 of its blocks could not be run, most likely for want of "
        "memory; free some, or give smaller batches, such as --set method.forget_batch=4"
    )
