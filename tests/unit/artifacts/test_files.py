import os
import stat

import pytest
import torch

from unsee.artifacts import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    fingerprint,
    versions,
)
from unsee.artifacts import files as files_module


def test_what_was_written_is_there_and_nothing_else(tmp_path):
    atomic_write_text(tmp_path / "note.txt", "Żaneta")
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "Żaneta"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "note.txt"
    atomic_write_bytes(path, b"old")

    def fail(handle):
        raise OSError(28, "disk full")

    monkeypatch.setattr(files_module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full") as caught:
        atomic_write_bytes(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_what_a_kill_left_of_a_write_is_taken_by_the_next(tmp_path, monkeypatch):
    drafts = []

    def killed(handle):
        drafts.extend(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            atomic_write_json(tmp_path / "x.json", {"a": 1})
    assert len(drafts) == 1
    (tmp_path / drafts[0]).write_text("much more than what is written after it")
    atomic_write_json(tmp_path / "x.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == '{\n  "a": 1\n}\n'


def test_a_draft_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".x.json.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"x\.json\.partial"):
        atomic_write_json(tmp_path / "x.json", {})
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "scores.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_their_owner_only(tmp_path):
    atomic_write_json(tmp_path / "scores.json", {})
    assert stat.S_IMODE(os.stat(tmp_path / "scores.json").st_mode) == 0o600


def test_the_fingerprint_does_not_depend_on_order_or_lossless_widening():
    a, b = torch.randn(3, 2).half(), torch.arange(4)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"b": b, "a": a.float()})


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([1.0, 2.5])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([])},
        {"a": torch.tensor([1, 2], dtype=torch.int32)},
    ],
)
def test_the_fingerprint_depends_on_names_shapes_and_values(other):
    assert fingerprint(other) != fingerprint({"a": torch.tensor([1.0, 2.0])})


def test_versions_name_what_decides_the_numbers():
    assert {"unsee", "python", "torch", "transformers"} <= set(versions())
