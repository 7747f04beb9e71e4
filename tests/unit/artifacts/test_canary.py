import pytest
import torch

from unsee.artifacts.canary import check_effect, check_same, distances, respond, take_canary
from unsee.errors import ArtifactError


def test_probes_are_the_same_each_time(tiny_vlm):
    one, other = take_canary(tiny_vlm), take_canary(tiny_vlm)
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])
    assert distances(one.outputs, other.outputs) == {"image": 0, "text": 0}


def test_probes_differ_from_one_another(tiny_vlm):
    features = take_canary(tiny_vlm).outputs["image"].reshape(4, -1)
    apart = torch.cdist(features, features) + torch.eye(4)
    assert apart.min() > 1e-2


def test_no_special_token_is_probed(tiny_vlm):
    special = set(tiny_vlm.processor.tokenizer.all_special_ids)
    assert not special & set(take_canary(tiny_vlm).tokens.flatten().tolist())
    assert tiny_vlm.model.config.image_token_id in special


def test_probing_leaves_training_mode_as_it_was(tiny_vlm):
    canary = take_canary(tiny_vlm)
    tiny_vlm.model.train()
    respond(tiny_vlm, canary.inputs, canary.tokens)
    assert tiny_vlm.model.training


def test_the_distance_is_relative_to_the_reference():
    reference = {"image": torch.tensor([3.0, -3.0])}
    assert distances({"image": torch.tensor([3.0, -3.3])}, reference)["image"] == pytest.approx(
        0.1 / 2**0.5
    )


@pytest.mark.parametrize("output", [torch.tensor([1.0]), torch.tensor([1.0, float("nan")])])
def test_other_shapes_and_nan_are_infinitely_far(output):
    reference = {"image": torch.tensor([1.0, 1.0])}
    assert distances({"image": output}, reference)["image"] == float("inf")
    with pytest.raises(ArtifactError, match="off by inf"):
        check_same({"image": output}, reference, torch.float32, where="run", problem="does not act")


def test_a_tolerance_is_stated_for_each_dtype():
    base, after = {"image": torch.ones(4)}, {"image": torch.ones(4) * 1.01}
    check_effect(base, after, torch.float32, where="run")
    with pytest.raises(ArtifactError, match=r"within 1\.0e-02 of the base's, 1e-01 is needed in"):
        check_effect(base, after, torch.bfloat16, where="run")
