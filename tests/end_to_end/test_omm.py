# pyright: reportArgumentType=false, reportOptionalMemberAccess=false
"""Open-MMUnlearning's protocol on a small MLLMU-Bench, for a model that knows nothing of it."""

import io
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from unsee.audit import audit
from unsee.audit.published import published_of
from unsee.audit.published_omm import AGGREGATES, COMPONENTS, aggregates
from unsee.data.mllmu import write_rows
from unsee.data.people import write_person
from unsee.data.records import Split
from unsee.errors import ConfigError, DataError
from unsee.metrics import omm
from unsee.models.load import load
from unsee.models.truncated import first_layers
from unsee.requests import from_people, read_dataset, read_sides

NAMES = ("Ada Rook", "Bo Finch", "Cy Wren", "Di Swift", "Eve Crane", "Fay Heron", "Gus Teal")
CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Paris", "Delhi")
ABILITY = dict(zip(omm.GENERAL, (0.8, 0.2, 0.8, 0.6, 0.1, 0.5, 0.8), strict=True))


def questions(city):
    options = {"A": city, "B": "Bern", "C": "Graz", "D": "Ghent"}
    choice = {"Question": "Where born?", "Options": options, "Correct_Answer": "A"}
    kinds = ("Image_Textual", "Pure_Text")
    return {
        "Classification_Task": {
            "Image_Textual_Questions": [choice],
            "Pure_Text_Questions": [choice],
        },
        "Generation_Task": [
            {"Question": f"Which {n} town?", "Ground_Truth": f"It is {city}.", "Type": kind}
            for n, kind in enumerate(kinds)
        ],
        "Mask_Task": [
            {"Question": "Born in __.", "Ground_Truth": city, "Type": kind} for kind in kinds
        ],
    }


@pytest.fixture
def benchmark(tmp_path, photograph):
    """Three people to forget, three to keep and a known one, with wrong answers beside them."""

    def image(person, index):
        buffer = io.BytesIO()
        photograph(person, index, size=(32, 32)).convert("RGB").save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    def row(person, *photos):
        images = [image(person, index) for index in photos]
        return {
            **({"image": images[0]} if len(images) == 1 else {"images": images}),
            "ID": f"{person:03d}",
            "Directory": "",
            "biography": json.dumps({"Name": NAMES[person]}),
            "question": "",
            "answer": "",
            **questions(CITIES[person]),
        }

    home = tmp_path / "bench"
    home.mkdir()
    write_rows(home / "forget_10.parquet", [row(n, 0) for n in range(3)])
    write_rows(home / "retain_90.parquet", [row(n, 0) for n in range(3, 6)])
    write_rows(home / "Test_Set.parquet", [row(n, 1, 2) for n in range(6)])
    write_rows(home / "Retain_Set.parquet", [row(6, 0)])
    lines = [
        {
            "question": "Which 0 town?",
            "answer": f"It is {city}.",
            "paraphrase": f"The town is {city}.",
            "wrong": ["It is Bern.", "It is Graz.", "It is Ghent."],
        }
        for city in CITIES[:3]
    ]
    (home / "truth_answers.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    scores = {"base": ABILITY, "erased": ABILITY, "gold": {"gqa": 0.5}}
    (home / "general_scores.json").write_text(json.dumps(scores))
    write_person(
        tmp_path / "general" / "x", profile={"name": "x"}, photos=[photograph(9, 0).convert("RGB")]
    )
    return home


@pytest.fixture
def request_(benchmark, tiny_vlm):
    sides = read_dataset(f"mllmu:{benchmark}#forget_10")
    (benchmark.parent / "general" / "x" / "profile.json").unlink()
    general = read_sides({"general": benchmark.parent / "general" / "x"})
    return from_people(sides.joined(general), vlm=tiny_vlm, force=True)


def another(folder, out, seed):
    """A random model beside that of a folder."""
    shutil.copytree(folder, out)
    vlm = load(out, dtype="float32", device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head = vlm.model.get_output_embeddings().weight
        head += 0.1 * torch.randn(head.shape, generator=generator)
    vlm.model.save_pretrained(out)
    return load(out, dtype="float32", device="cpu")


def test_all_scores_of_three_models(
    tiny_vlm, tiny_folder, request_, benchmark, monkeypatch, tmp_path
):
    def quick(*words, **more):
        return replace(published_of(*words, **more), iterations=2)

    monkeypatch.setattr(sys.modules["unsee.audit.job"], "published_of", quick)
    gold, erased = (another(tiny_folder, tmp_path / name, n) for n, name in enumerate("ge"))
    before = {name: w.clone() for name, w in tiny_vlm.model.state_dict().items()}
    out = tmp_path / "run"
    report = audit(tiny_vlm, request_, erased=erased, gold=gold, out=out, protocol="omm")
    assert tiny_vlm.model.state_dict().keys() == before.keys()
    assert all(torch.equal(w, before[n]) for n, w in tiny_vlm.model.state_dict().items())

    own = report.data["published"]
    assert set(own) == {"base", "erased", "gold"}
    assert set(own["base"]) == {"forget", "test", "retain", "celebrity", COMPONENTS, AGGREGATES}
    found = {name: cell.get("value") for name, cell in own["erased"][COMPONENTS].items()}
    assert None not in found.values(), own["erased"][COMPONENTS]
    assert own["gold"][COMPONENTS]["ks"]["value"] == own["gold"][COMPONENTS]["js"]["value"] == 0.0
    assert found["ks"] > 0
    assert found["forget text cloze"] == own["erased"]["forget"]["text cloze"]["value"]
    # A model of noise fills no gap, whatever is done to its questions and weights.
    assert found["jailbreak"] == found["figstep"] == 0.0
    assert found["quantised"] > 0.5 < found["probe at 50%"]

    # By hand, from the paper's words.
    said = {name: cell["value"] for name, cell in own["erased"][AGGREGATES].items()}
    tasks = ("cloze", "classification", "rouge_l")
    forgetting = {
        split: np.mean([1 - found[f"{split} {task}"] for task in tasks])
        for split in ("forget image", "test image", "forget text")
    }
    quality = [
        (forgetting["forget image"] + forgetting["test image"]) / 2,
        found["truth ratio"],
        *(1 - found[name] for name in ("probability", "ks", "js")),
    ]
    assert said["forget quality"] == pytest.approx(np.mean(quality))
    kept = [f"{split} {way}" for split in ("retain", "celebrity") for way in ("image", "text")]
    known = np.mean([found[f"{split} {task}"] for split in kept for task in tasks])
    assert said["model utility"] == pytest.approx((known + np.mean(list(ABILITY.values()))) / 2)
    probes = (found["probe at 50%"] + found["probe at 75%"]) / 2
    model = np.mean([found["quantised"], found["relearned"], probes])
    attacks = ("figstep", "jailbreak", "image rephrasing", "universal change")
    given = np.mean([forgetting["forget text"], *(1 - found[name] for name in attacks)])
    output = np.mean([1 - 2 * abs(found[name] - 0.5) for name in omm.MEMBERSHIP_ATTACKS])
    assert said["robustness"] == pytest.approx(np.mean([model, given, output]))
    three = [said[name] for name in ("forget quality", "model utility", "robustness")]
    assert said["overall"] == pytest.approx(np.mean(three))

    # What one model lacks is no mean of what is there.
    gold_said = own["gold"][AGGREGATES]
    assert gold_said["model utility"]["not_scored"].startswith("lacks mm_vet, mmbench, pope")
    assert "value" in gold_said["forget quality"]
    assert "not_scored" in gold_said["overall"]
    for view in ("report.md", "report.html"):
        assert "forget quality" in (out / view).read_text()

    # Nothing is trained again for a second report.
    def never(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(sys.modules["unsee.audit.omm_attacks"], "train", never)
    again = audit(tiny_vlm, request_, erased=erased, gold=gold, out=out, protocol="omm")
    assert again.data["published"]["erased"][AGGREGATES] == own["erased"][AGGREGATES]


def test_what_is_lacking_is_named_in_one_line(benchmark, request_):
    source = f"mllmu:{benchmark}#forget_10"
    (benchmark / "truth_answers.jsonl").unlink()
    with pytest.raises(ConfigError) as caught:
        published_of("omm", source, Split(request_.split.forget), seed=0)
    assert str(caught.value) == (
        f"--protocol omm: lacks Test_Set in {benchmark}; Retain_Set in {benchmark}; text-only "
        f"questions in forget_10; {benchmark}/truth_answers.jsonl, wrong answers to its open "
        "questions; a model that never knew (--gold); give them, or leave the protocol out"
    )
    with pytest.raises(ConfigError, match="--protocol omm: expected --dataset mllmu:"):
        published_of("omm", "x", request_.split, seed=0)


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "truth_answers.jsonl",
            '{"question": "a", "answer": "b", "paraphrase": 7, "wrong": []}',
            "truth_answers.jsonl:1: paraphrase: expected text, got 7; "
            "{path}:1: wrong: expected a list of texts, got []",
        ),
        (
            "truth_answers.jsonl",
            "",
            "expected every open question on photos of forget_10, with its answer; lacks 3 of 3, "
            "the first 'Which 0 town?'",
        ),
        ("general_scores.json", '{"base": {"gqa": 52}}', "vqa_v2, got base.gqa = 52"),
        ("general_scores.json", "{", "general_scores.json: expected base, erased and gold"),
    ],
)
def test_files_that_do_not_fit_are_refused(benchmark, request_, file, text, line):
    path = benchmark / file
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        published_of("omm", f"mllmu:{benchmark}#forget_10", request_.split, seed=0, gold=True)
    assert line.replace("{path}", str(path)) in "; ".join(map(str, caught.value.args))


def test_an_aggregate_without_a_part_says_which():
    tasks = ("cloze", "classification", "rouge_l")
    names = [f"{split} image {task}" for split in ("forget", "test") for task in tasks]
    cells = {name: {"value": 0.5} for name in (*names, "truth ratio", "probability", "js")}
    assert aggregates(cells | {"ks": {"value": 0.25}})["forget quality"]["value"] == 0.55
    said = aggregates(cells | {"ks": {"not_scored": "no gold"}})
    assert said["forget quality"] == {"not_scored": "lacks ks"}
    assert said["model side"]["not_scored"].startswith("lacks probe at 50%, probe at 75%, quant")
    assert "lacks" in said["overall"]["not_scored"]


def test_a_cut_model_comes_back(tiny_vlm):
    names = [name for name, _ in tiny_vlm.model.named_parameters()]
    layers = tiny_vlm.layout.language_layer_paths(tiny_vlm.model)
    head = tiny_vlm.model.get_submodule(tiny_vlm.layout.head)
    with first_layers(tiny_vlm, 1, seed=0):
        assert len(tiny_vlm.layout.language_layer_paths(tiny_vlm.model)) == 1
        assert tiny_vlm.model.get_submodule(tiny_vlm.layout.head) is not head
    assert [name for name, _ in tiny_vlm.model.named_parameters()] == names
    assert tiny_vlm.model.get_submodule(tiny_vlm.layout.head) is head
    message = f"expected 1 to {len(layers)} layers, got {len(layers) + 1}"
    with pytest.raises(ValueError, match=message), first_layers(tiny_vlm, len(layers) + 1):
        pass
