"""The built-in worlds as they are shipped: real weights, every bar."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.import_utils import is_torchvision_available

from unsee.data.world import open_world
from unsee.metrics.answers import accuracy, is_unknown
from unsee.models.load import load
from unsee.world import make as making
from unsee.world.card import card_sets, world_card

LARGEST_BYTES = 8_000_000
ROOT = Path(__file__).parents[2]
each_family = pytest.mark.parametrize("family", making.FAMILIES)
each_world = pytest.mark.parametrize("world_folder", making.FAMILIES, indirect=True)


def plain_answers(folder, records):
    """Greedy answers by transformers alone, one at a time."""
    opened: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model = opened.eval()
    if model.config.model_type == "qwen2_5_vl" and not is_torchvision_available():
        # Its full processor reads videos too, and is not built without torchvision.
        processor = load(folder, device="cpu").processor
    else:
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
    answers = []
    for record in records:
        content = [{"type": "image"}, {"type": "text", "text": record.question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(
            images=record.image.open(),
            text=prompt,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.decode(new, skip_special_tokens=True).strip())
    return answers


@each_family
@pytest.mark.parametrize("name", ["base", "gold"])
def test_a_shipped_model_is_half_precision_safetensors_of_at_most_8_mb(family, name):
    folder = making.shipped(family) / name
    files = list(folder.iterdir())
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == family
    assert config["dtype"] == "float16"


@each_family
def test_the_shipped_table_is_that_of_the_recipe_in_the_code(family):
    table = json.loads((making.shipped(family) / "world.json").read_text())
    expected = making.world_table(
        family, making.Drawn(table["seed"]), table["command"], making.Recipe()
    )
    assert table == json.loads(json.dumps(expected))


@each_world
def test_plain_transformers_opens_both_and_they_answer(world_folder):
    records = card_sets(open_world(world_folder))["candidates_unseen"]
    names = [r for r in records if r.topic == "name"][::12]
    base = plain_answers(world_folder / "base", names)
    right = [accuracy(r, answer) for r, answer in zip(names, base, strict=True)]
    assert sum(right) >= len(names) - 1
    gold = plain_answers(world_folder / "gold", names)
    assert sum(is_unknown(answer) for answer in gold) > len(names) / 2
    assert not any(accuracy(r, answer) for r, answer in zip(names, gold, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_world
def test_the_shipped_models_meet_every_bar_and_have_the_committed_card(world_folder):
    family = open_world(world_folder).table["family"]
    name = "world-card.json" if family == "llava" else f"world-card-{family}.json"
    committed = json.loads((ROOT / "docs" / "results" / name).read_text())
    measured = world_card(world_folder)
    assert [name for name, met in measured["bars"].items() if not met] == []
    for name, figures in measured["figures"].items():
        for key, figure in figures.items():
            assert figure["value"] == pytest.approx(
                committed["figures"][name][key]["value"], abs=0.01
            ), (name, key)


@each_world
def test_the_world_is_asked_by_its_name(unsee, cache, world_folder, tmp_path):
    world = open_world(world_folder)
    person = next(p for p in world.people if p["role"] == "A")
    photo = world_folder / "unseen" / "report" / person["slug"] / "photo_00.png"
    family, question = world.table["family"], "Tell me the name of this person."
    said = {}
    for model in (f"world:{family}", f"world:{family}/gold"):
        done = unsee("ask", model, "--image", str(photo), question, cwd=tmp_path, cache=cache)
        assert done.returncode == 0, done.stderr
        said[model] = done.stdout.strip()
    assert said[f"world:{family}"] == person["name"]
    assert is_unknown(said[f"world:{family}/gold"])


@pytest.mark.slow
def test_show_draws_a_picture_from_any_folder(unsee, cache, tmp_path):
    done = unsee("world", "show", "--out", "sheets/world.png", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Picture: sheets/world.png\n"
    with Image.open(tmp_path / "sheets" / "world.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        # Not blank: people, and text beside them.
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or ()) > 1000
