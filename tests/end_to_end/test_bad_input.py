"""Every mistake: one line, exit 2, nothing half-written."""

import errno
import json
import os
import shutil

import pytest
from safetensors import SafetensorError
from typer.testing import CliRunner

from unsee.artifacts import locked
from unsee.cli import app

QUICK = ["--set", "method.steps=2", "--set", "method.checkpoint_every=0"]


@pytest.fixture
def case(people, knowing_folder, tmp_path):
    """Arguments of a run that would do, and where it goes."""
    sides = {side: tmp_path / side for side in ("forget", "retain", "general")}
    for side, folder in sides.items():
        shutil.copytree(people / side, folder)
    words = {"model": str(knowing_folder), "--subject": str(sides["forget"])}
    words |= {f"--{side}": str(sides[side]) for side in ("retain", "general")}
    return words | {"--out": str(tmp_path / "runs" / "x")}


def run(verb, case, *more):
    words = [word for flag, value in case.items() if flag != "model" for word in (flag, value)]
    return CliRunner().invoke(app, [verb, case["model"], *words, "--quiet", *more])


def refused(result, tmp_path, *, start, end):
    """Exits with 2, one line on stderr, and no run folder."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith(f"unsee: {start}"), result.stderr
    assert result.stderr.endswith(f"{end}\n")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_missing_folder(case, tmp_path):
    case["--subject"] = str(tmp_path / "nobody")
    refused(
        run("forget", case),
        tmp_path,
        start=f"{tmp_path}/nobody: expected a folder with one subfolder a person, got nothing",
        end="check the path",
    )


def test_empty_folder(case, tmp_path):
    (tmp_path / "empty").mkdir()
    case["--subject"] = str(tmp_path / "empty")
    refused(
        run("forget", case),
        tmp_path,
        start=f"{tmp_path}/empty: expected a folder with one subfolder a person, got an empty",
        end="add people/<name>/ with jpg, png, webp or pgm photos",
    )


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_out_is_a_file(case, tmp_path, verb):
    """Said before the model is asked, which takes long, not when its answers are to be kept."""
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    case["--out"] = str(notes)
    refused(
        run(verb, case),
        tmp_path,
        start=f"{notes}: expected a folder to write the run to",
        end="got a file",
    )
    assert notes.read_text() == "mine"


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_another_process_works_in_the_folder(case, tmp_path, verb):
    out = tmp_path / "x"
    case["--out"] = str(out)
    with locked(out):
        result = run(verb, case)
        assert [path.name for path in out.iterdir()] == [".lock"]
    refused(
        result,
        tmp_path,
        start=f"{out}: process {os.getpid()} has worked in it since ",
        end="; wait for it, or give another --out",
    )
    assert not out.exists()


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_a_folder_that_cannot_be_written_to(case, tmp_path, verb):
    (tmp_path / "file").write_text("mine")
    case["--out"] = str(tmp_path / "file" / "run")
    refused(
        run(verb, case),
        tmp_path,
        start=f"{tmp_path}/file/run: cannot be written to (Not a directory)",
        end="; give another --out",
    )


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_a_read_only_disk(case, tmp_path, monkeypatch, verb):
    def read_only(path, *args, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.os.mkdir", read_only)
        result = run(verb, case)
    refused(
        result,
        tmp_path,
        start=f"{tmp_path}/runs/x: cannot be written to (Read-only file system)",
        end="; give another --out",
    )


def test_a_disk_that_is_full_of_answers(case, tmp_path, monkeypatch):
    """The first batch of answers fits in part; what is there is read when there is space again."""
    write = os.write

    def partly(handle, content):
        return write(handle, content[:10])

    with monkeypatch.context() as patch:
        patch.setattr("unsee.replies.os.write", partly)
        result = run("forget", case, *QUICK)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    answers = tmp_path / "runs" / "x" / "answers.jsonl"
    assert result.stderr == (
        f"unsee: {answers}: cannot be read or written (No space left on device); what is done is "
        "kept; free some space or allow it, or give another folder\n"
    )
    done = run("forget", case, *QUICK)
    assert done.exit_code == 0, done.output


def test_a_disk_that_is_full_of_weights(case, tmp_path, monkeypatch):
    def full(tensors, path, **more):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    checkpoints = ["--set", "method.steps=2", "--set", "method.checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr("unsee.artifacts.files.save_file", full)
        result = run("forget", case, *checkpoints)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr == (
        f"unsee: {tmp_path}/runs/x/.partial/checkpoint.safetensors: cannot be written (I/O error: "
        "No space left on device (os error 28)); free some space, or give another folder\n"
    )
    assert {path.name for path in (tmp_path / "runs" / "x").iterdir()} == {"answers.jsonl"}


def test_unreadable_image(case, tmp_path):
    broken = tmp_path / "forget" / "jane_doe" / "photo_02.png"
    broken.write_bytes(b"not a photo")
    refused(
        run("forget", case),
        tmp_path,
        start=f"{broken}: expected a readable jpg, png, webp or pgm image, got 11 bytes",
        end="replace or remove the file",
    )


def test_unknown_method(case, tmp_path):
    refused(
        run("forget", case, "--method", "grad_dif"),
        tmp_path,
        start="unknown method 'grad_dif'",
        end="did you mean 'grad_diff'?",
    )


def test_unknown_setting(case, tmp_path):
    refused(
        run("forget", case, "--set", "method.retain_wait=1"),
        tmp_path,
        start="method vkd: retain_wait: unknown setting; did you mean 'retain_weight'?",
        end="(got 1)",
    )


def test_same_person_on_both_sides(case, tmp_path):
    shutil.copytree(tmp_path / "forget" / "jane_doe", tmp_path / "retain" / "jane_doe")
    refused(
        run("forget", case),
        tmp_path,
        start="expected different people in forget and retain, got Jane Doe in both",
        end="remove them from one side",
    )


@pytest.mark.parametrize("side", ["retain", "general"])
def test_missing_retain_or_general(case, tmp_path, side):
    del case[f"--{side}"]
    why = {
        "retain": "photos of other people whom the model knows; without them it forgets them too",
        "general": "photos of strangers; without them it unlearns to look at photos at all",
    }
    refused(
        run("forget", case),
        tmp_path,
        start=f"--{side}: missing; give a folder with ",
        end=why[side],
    )


def test_text_only_model(case, tmp_path):
    model = tmp_path / "text"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    case["model"] = str(model)
    refused(
        run("forget", case),
        tmp_path,
        start=f"{model}: expected a vision-language model of a known family (gemma3, ",
        end="got model type 'llama'; if it is one, give it a row in unsee/models/families.py",
    )


def test_missing_model(case, tmp_path):
    case["model"] = str(tmp_path / "nowhere" / "model")
    refused(
        run("forget", case),
        tmp_path,
        start=f"{tmp_path}/nowhere/model: no such model folder",
        end="such as llava-hf/llava-1.5-7b-hf",
    )


def test_a_model_that_knows_nobody(case, tmp_path, tiny_folder):
    case["model"] = str(tiny_folder)
    refused(
        run("forget", case),
        tmp_path,
        start=f"{tmp_path}/forget: {tiny_folder} does not recognise Jane Doe, so there is nothing",
        end="check the photos and the model, or go on with --force",
    )


def test_a_draw_outside_a_world(case, tmp_path):
    case["--subject"] = "world:A"
    refused(
        run("forget", case),
        tmp_path,
        start="--subject world:A: ",
        end="is no model of a world; give world:llava, a world's folder, or a people folder",
    )


def test_an_unknown_draw(case, tmp_path):
    case["--subject"] = "world:D"
    refused(
        run("forget", case),
        tmp_path,
        start="--subject world:D: expected one of world:A, ",
        end="or a folder",
    )


def test_artifact_of_another_base(case, tmp_path, tiny_folder):
    done = run("forget", case, *QUICK)
    assert done.exit_code == 0, done.output
    artifact = case.pop("--out")
    case |= {"model": str(tiny_folder), "--artifact": artifact}
    before = sorted((tmp_path / "runs" / "x").iterdir())
    result = run("audit", case, "--out", str(tmp_path / "audit"))
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith(f"unsee: {artifact}: made for base ")
    assert result.stderr.endswith("load the model it was made for\n")
    assert sorted((tmp_path / "runs" / "x").iterdir()) == before
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_all_bad_rows_of_a_request_at_once(case, tmp_path, verb):
    path = tmp_path / "request.jsonl"
    rows = [{"subject": "Jane", "image": "../x.png"}, {"image": "https://x/y.png"}, [1]]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    case["--request"] = str(path)
    del case["--subject"]
    result = run(verb, case)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"unsee: {path}:1: image: expected a path inside the request's")
    assert lines[1].startswith(f"       {path}:2: image: expected a path, got an address")
    assert lines[2].startswith(f"       {path}:3: expected an object, got [1]")
    assert len(lines) == 3
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_two_sources_of_people(case, tmp_path, verb):
    case["--dataset"] = "mllmu:bench#forget_10"
    refused(
        run(verb, case),
        tmp_path,
        start="subject: expected --subject, --request or --dataset, got --subject and --dataset",
        end=f"give one (got '{case['--subject']}')",
    )


@pytest.mark.parametrize("verb", ["forget", "audit"])
def test_no_source_of_people(case, tmp_path, verb):
    del case["--subject"]
    refused(
        run(verb, case),
        tmp_path,
        start="subject: missing; give --subject, ",
        end="--request or --dataset",
    )


def test_a_request_without_people_to_keep(case, tmp_path):
    path = tmp_path / "forget" / "request.jsonl"
    path.write_text('{"subject": "Jane", "image": "jane_doe/photo_00.png"}')
    del case["--subject"], case["--general"]
    case["--request"] = str(path)
    refused(
        run("forget", case),
        tmp_path,
        start=f"--general: missing; give rows of role general in {path}, or a folder with photos",
        end="without them it unlearns to look at photos at all",
    )


def test_a_missing_split_of_a_benchmark(case, tmp_path):
    (tmp_path / "bench").mkdir()
    del case["--subject"]
    case["--dataset"] = f"mllmu:{tmp_path}/bench#forget_10"
    refused(
        run("forget", case),
        tmp_path,
        start=f"mllmu:{tmp_path}/bench#forget_10: no such split; expected forget_5.parquet",
        end="(splits there: none)",
    )
