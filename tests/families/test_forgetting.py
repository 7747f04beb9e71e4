"""Every family is asked, made to forget, audited, and exported."""

from dataclasses import replace
from math import isfinite
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from unsee import report as reports
from unsee.answering import generate_answers
from unsee.artifacts import apply_weights, fingerprint
from unsee.audit import audit
from unsee.data.augment import variant
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.errors import ConfigError
from unsee.export import export
from unsee.forget import forget
from unsee.methods.kl_min import KLMin
from unsee.methods.rmu import RMU
from unsee.methods.vkd import VKD
from unsee.models.load import load
from unsee.teacher import Teacher, feature_path, visual_features
from unsee.train import train

FEW = {
    "steps": 3,
    "lr": 3e-3,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}


def vkd(vlm, **settings):
    """The default feature where the family has it, as a user would choose."""
    feature = {} if vlm.layout.language_features else {"feature": "projector"}
    return VKD.model_validate(FEW | feature | settings)


def features_of(vlm):
    names = ["projector", "vision[0]", "vision[-1]"]
    return [*names, "language[0]"] if vlm.layout.language_features else names


@pytest.fixture
def asked_split(small_split):
    """The small split with a few questions for the audit."""
    text = Record("Ada", None, "What pet has Ada Rook?", "a green cat", topic="pet")
    return replace(
        small_split,
        audit={
            "forget_seen": small_split.forget[:2],
            "forget_text": (text,),
            "retain_seen": small_split.retain[:2],
            "general": small_split.general[-2:],
        },
    )


def test_load_ask_forget_audit_export(vlm, asked_split, tmp_path, family, tiny_families):
    before = {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}
    assert len(generate_answers(vlm, asked_split.general, max_new_tokens=3)) == 4

    run = forget(vlm, asked_split, method=vkd(vlm), out=tmp_path / "run")
    visual = set(vlm.layout.parameter_names(vlm.model, ["vision", "projector"]))
    changed = set(run.manifest["tensors"])
    assert changed
    assert changed <= visual
    assert changed & set(vlm.layout.parameter_names(vlm.model, ["projector"]))
    assert changed & set(vlm.layout.parameter_names(vlm.model, ["vision.blocks[0]"]))
    after = vlm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    fresh = load(tiny_families(family), dtype="float32", device="cpu")
    report = audit(fresh, asked_split, artifact=run, out=tmp_path / "audit")
    assert reports.load(tmp_path / "audit") == report
    assert set(report.models) >= {"base", "erased"}
    assert report.data["text_logits_bit_identical"] == {"value": True, "n": 1}
    parts = report.data["changed_tensors"]
    assert parts["vision"] + parts["projector"] == len(changed)
    assert parts["language"] == parts["head"] == parts["elsewhere"] == 0

    folder = export(run, merged=tmp_path / "merged")
    opened: Any = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    stock, info = opened
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    apply_weights(fresh, run)
    batch = encode(fresh, asked_split.forget[:2], answers=True, side="right").inputs()
    with torch.no_grad():
        expected = fresh.model(**batch, use_cache=False).logits
        assert torch.equal(stock.eval()(**batch, use_cache=False).logits, expected)
        assert not torch.equal(vlm.model(**batch, use_cache=False).logits, expected)
    carried = {path.name for path in tiny_families(family).iterdir()} - {"config.json"}
    for name in carried - {"model.safetensors"}:
        assert (folder / name).read_bytes() == (tiny_families(family) / name).read_bytes()
    again = load(folder, dtype="float32", device="cpu")
    assert again.fingerprint == fingerprint(fresh.model.state_dict())
    read = encode(again, asked_split.forget[:2], answers=True, side="right").inputs()
    assert all(torch.equal(batch[name], read[name]) for name in batch)


@pytest.mark.parametrize("sizes", ["one size", "several sizes"])
def test_features_are_those_of_each_photo_alone(vlm, small_split, mixed_records, sizes):
    several = sizes == "several sizes"
    records = mixed_records if several else small_split.forget[::2]
    batch = encode(vlm, records, answers=True, side="right")
    photos = [(record.image, 0) for record in records if record.image is not None]
    for feature in features_of(vlm):
        if several and vlm.layout.family == "idefics2" and feature.startswith("vision"):
            continue  # Its tower pads photos to the largest of the batch.
        found = visual_features(vlm, batch, feature, logits=feature.startswith("language"))
        assert len(found.features) == len(photos)
        assert found.features.requires_grad
        known = Teacher.of(vlm, feature).features(vlm, photos)
        torch.testing.assert_close(found.features.detach(), known, rtol=1e-4, atol=1e-5)
        for photo, row, patches in zip(photos, known, found.patches, strict=True):
            alone = Teacher.of(vlm, feature).features(vlm, [photo])[0]
            assert len(alone) == patches
            torch.testing.assert_close(row[:patches], alone, rtol=1e-4, atol=1e-5)
            rest = row[patches:]
            assert torch.equal(rest, row[torch.arange(patches, len(row)) % patches])


def test_photos_of_several_sizes_are_forgotten(vlm, small_split, mixed_records):
    sizes = [record.image for record in mixed_records if record.image is not None]
    split = replace(
        small_split,
        forget=tuple(replace(r, image=p) for r, p in zip(small_split.forget, sizes, strict=False)),
        visible=(),
    )
    method = vkd(vlm, visible_batch=0, target="stranger")
    assert train(vlm, split, method).changed


def test_gradients_of_the_features_reach_the_last_used_block(vlm, small_split):
    used = vlm.layout.used_vision_blocks(vlm.model)
    batch = encode(vlm, small_split.forget[:2], answers=False, side="right")
    vlm.model.requires_grad_(True)
    visual_features(vlm, batch, "projector", logits=False).features.square().sum().backward()
    grads = {n: p.grad for n, p in vlm.model.named_parameters() if p.grad is not None}
    for part in (f"vision.blocks[{used - 1}]", "vision.blocks[0]"):
        names = vlm.layout.parameter_names(vlm.model, [part])
        assert any(name in grads and grads[name].any() for name in names), part
    for path in vlm.layout.projector_paths(vlm.model):
        names = [name for name in grads if name.startswith(f"{path}.")]
        assert any(grads[name].any() for name in names), path
    language = vlm.layout.parameter_names(vlm.model, ["language", "head"])
    assert grads.keys().isdisjoint(language)


def test_neurons_are_pruned(vlm, small_split):
    teacher = Teacher.of(vlm, "projector")
    teacher.pruned_from(vlm, small_split, 0.1)
    assert teacher.forget_weights is not None
    changed = {
        name
        for name, tensor in teacher.forget_weights.items()
        if not torch.equal(tensor, teacher.weights[name])
    }
    blocks = vlm.layout.vision_block_paths(vlm.model)
    assert changed == {f"{block}.{vlm.layout.vision_mlp_out}.weight" for block in blocks}


@pytest.mark.parametrize("family", ["mllama", "paligemma"], indirect=True)
def test_language_features_are_refused_where_they_are_not_of_the_photo_alone(vlm):
    with pytest.raises(ConfigError, match=r"does not tell of the photo alone in .*; choose"):
        feature_path(vlm, "language[0]")


def test_variants_keep_the_size_and_so_the_patches(vlm, mixed_records):
    for record in mixed_records:
        if record.image is not None:
            assert variant(record.image, 1).size == record.image.open().size


def test_baselines_with_a_reference_of_their_own_train(vlm, small_split):
    layers = ("language.layers[0]",)
    for method in (
        RMU.model_validate(FEW | {"layer": 0, "parts": layers}),
        KLMin.model_validate(FEW | {"parts": layers, "lora_rank": 2}),
    ):
        result = train(vlm, small_split, method)
        assert result.changed
        assert set(result.changed) <= set(vlm.layout.parameter_names(vlm.model, layers))
        assert all(map(isfinite, result.terms[-1].values()))
