"""What every registered eraser holds to."""

import json
import re
import tomllib

import pytest
import torch

from unsee.answering import generate_answers
from unsee.artifacts.files import file_record
from unsee.data.collate import encode
from unsee.erasers import ERASERS
from unsee.erasers.protocol import Eraser, Fits, erased
from unsee.erasers.storage import CANARY, ERASER, load_eraser, save_eraser, under_artifacts
from unsee.errors import ArtifactError, ConfigError, DataError
from unsee.settings import resolve

# Settings under which a tiny model that knows seven photos forgets four of them; an eraser that is
# not named here is tried at its defaults.
FEW = {
    "mllmeraser": {
        "variants": 2,
        "direction": "subject",
        "layers": (1, 2),
        "false_fire": 0.15,
        "ridge": 0.01,
    }
}
FIELDS = {
    "method": {"name": "test", "settings": {}, "kind": "eraser"},
    "settings": {},
    "seeds": [0],
    "split": "",
    "request": {},
    "command": "",
    "cost": {},
}
each_eraser = pytest.mark.parametrize(
    "cls", [cls for _, cls in ERASERS.items()], ids=ERASERS.names()
)


@pytest.fixture
def few(cls):
    name = next(name for name, known in ERASERS.items() if known is cls)
    return cls.model_validate(FEW.get(name, {}))


@pytest.fixture
def fitted(few, knowing_vlm, small_split):
    return few.fit(knowing_vlm, small_split, seed=0, scope="visual")


def text_records(split):
    return [r for side in (split.forget, split.general) for r in side if r.image is None]


def logits(vlm, records):
    batch = encode(vlm, records, answers=False, side="left")
    with torch.no_grad():
        return vlm.model(**batch.inputs(), use_cache=False).logits


def right(vlm, records):
    answers = generate_answers(vlm, records)
    return sum(a == r.answer for a, r in zip(answers, records, strict=True)) / len(records)


@each_eraser
def test_it_is_settings_with_a_line_for_every_field(cls):
    assert isinstance(cls(), Fits)
    assert cls.kind == "eraser"
    for field in cls.model_fields:
        assert f" {field}: " in cls.__doc__, field


@each_eraser
def test_settings_survive_json_and_toml(cls, few):
    for settings in (cls(), few):
        table = settings.model_dump(mode="json")
        assert resolve(cls, json.loads(json.dumps(table))) == settings
        lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if v is not None and v != {}]
        assert resolve(cls, tomllib.loads("\n".join(lines))) == settings


@each_eraser
def test_an_unknown_setting_is_refused_with_the_nearest_name(cls):
    field = next(iter(cls.model_fields))
    with pytest.raises(ConfigError, match=f"method: {field}x: unknown setting; did you mean"):
        resolve(cls, {f"{field}x": 3}, where="method")


@each_eraser
def test_fitting_leaves_the_model_as_it_was_and_repeats_with_the_seed(
    few, knowing_vlm, small_split
):
    before = {name: tensor.clone() for name, tensor in knowing_vlm.model.state_dict().items()}
    first, again = (few.fit(knowing_vlm, small_split, seed=3, scope="visual") for _ in range(2))
    after = knowing_vlm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in knowing_vlm.model.parameters())
    assert isinstance(first, Eraser)
    assert first.subjects == small_split.subjects
    assert first.base == knowing_vlm.fingerprint
    assert all(torch.equal(t, again.tensors()[n]) for n, t in first.tensors().items())


@each_eraser
def test_forget_answers_are_lost_and_the_others_stay(fitted, knowing_vlm, small_split):
    keep = (*small_split.retain, *small_split.general, *small_split.visible)
    assert right(knowing_vlm, small_split.forget) == 1
    assert right(knowing_vlm, keep) == 1
    text = text_records(small_split)
    before = logits(knowing_vlm, text)
    with erased(knowing_vlm, [fitted]):
        assert right(knowing_vlm, small_split.forget) <= 0.25
        assert right(knowing_vlm, keep) > 0.9
        assert torch.equal(logits(knowing_vlm, text), before)
    assert right(knowing_vlm, small_split.forget) == 1


@each_eraser
def test_it_is_saved_and_acts_alike_when_loaded(fitted, knowing_vlm, small_split, tmp_path):
    with erased(knowing_vlm, [fitted]):
        expected = logits(knowing_vlm, small_split.forget)
    plain = logits(knowing_vlm, small_split.forget)
    manifest = save_eraser(tmp_path / "run", knowing_vlm, fitted, FIELDS)
    assert manifest["kind"] == "eraser"
    assert manifest["tensors"] == {}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    with under_artifacts(knowing_vlm, [tmp_path / "run"]):
        assert torch.equal(logits(knowing_vlm, small_split.forget), expected)
    assert torch.equal(logits(knowing_vlm, small_split.forget), plain)
    assert not torch.equal(expected, plain)
    with pytest.raises(ArtifactError, match="holds a finished run"):
        save_eraser(tmp_path / "run", knowing_vlm, fitted, FIELDS)


def tampered(folder, name, change):
    """Change a file of a run and its sum, as somebody would who switches the eraser off."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / name)
    save_file({key: change(key, tensor) for key, tensor in tensors.items()}, folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_record(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@each_eraser
def test_an_eraser_that_was_switched_off_is_refused(fitted, knowing_vlm, tmp_path):
    def off(key, tensor):
        return torch.zeros_like(tensor) if tensor.ndim > 1 else tensor

    folder = tmp_path / "run"
    save_eraser(folder, knowing_vlm, fitted, FIELDS)
    load_eraser(knowing_vlm, folder)
    tampered(folder, ERASER, off)
    with pytest.raises(ArtifactError, match="loaded, but does not act as when it was saved"):
        load_eraser(knowing_vlm, folder)
    tampered(folder, CANARY, lambda key, tensor: torch.zeros_like(tensor))
    with pytest.raises(ArtifactError, match=r"the eraser does nothing, its \w+ are 0"):
        load_eraser(knowing_vlm, folder)


@each_eraser
def test_damaged_and_foreign_erasers_are_refused_in_one_line(
    fitted, knowing_vlm, tiny_vlm, tmp_path
):
    folder = tmp_path / "run"
    save_eraser(folder, knowing_vlm, fitted, FIELDS)
    manifest = json.loads((folder / "manifest.json").read_text())

    def refused(match, **changes):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(ArtifactError, match=match) as caught:
            load_eraser(knowing_vlm, folder)
        assert "\n" not in str(caught.value)

    where = re.escape(str(folder))
    refused(f"{where}: made for base 0000", base_fingerprint="0000")
    refused(f"{where}: expected an eraser, got 'weights'", kind="weights")
    refused(f"{where}: manifest.json and eraser.safetensors disagree", eraser={"name": "mllm"})
    halved = {**manifest["eraser"], "subjects": ["Ada", "Bo", "Cy"]}
    refused(f"{where}: manifest.json and eraser.safetensors disagree", eraser=halved)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    content = bytearray((folder / ERASER).read_bytes())
    content[-1] ^= 1
    (folder / ERASER).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{where}: eraser.safetensors is damaged; copy"):
        load_eraser(knowing_vlm, folder)


@each_eraser
def test_nobody_to_forget_is_refused(few, tiny_vlm, small_split):
    from dataclasses import replace

    nobody = replace(small_split, forget=(), subjects=())
    with pytest.raises(DataError, match="expected somebody to forget, got nobody"):
        few.fit(tiny_vlm, nobody, seed=0, scope="visual")
