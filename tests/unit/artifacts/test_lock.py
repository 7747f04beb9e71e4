import json
import os
import subprocess
import sys

import pytest

from unsee.artifacts import lock as lock_module
from unsee.artifacts import locked
from unsee.errors import ArtifactError

HOLD = """
import sys, time
from pathlib import Path
from unsee.artifacts import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_made_for_its_owner_and_left_empty_it_goes_again(tmp_path):
    with locked(tmp_path / "runs" / "x"):
        assert (tmp_path / "runs" / "x").stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays_and_the_lock_goes(tmp_path):
    with locked(tmp_path / "x"):
        (tmp_path / "x" / "note.txt").write_text("mine")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["note.txt"]


def test_a_folder_that_was_there_stays_though_it_is_empty(tmp_path):
    with locked(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_a_second_is_told_which_process_and_since_when(tmp_path):
    run = tmp_path / "x"
    with (
        locked(run),
        pytest.raises(
            ArtifactError,
            match=rf"^{run}: process {os.getpid()} has worked in it since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d; wait for it, or give another --out$",
        ),
        locked(run),
    ):
        pass
    assert not run.exists()


def test_a_second_leaves_the_first_its_lock(tmp_path):
    with locked(tmp_path / "x"):
        for _ in range(2):
            with pytest.raises(ArtifactError, match="has worked in it"), locked(tmp_path / "x"):
                pass


@pytest.mark.parametrize("content", ["", "[1]", "{}"])
def test_a_holder_who_has_not_said_who_it_is_holds_it_all_the_same(tmp_path, content):
    with locked(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(ArtifactError, match="another process works in it"), locked(tmp_path):
            pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    run = tmp_path / "x"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        try:
            assert child.stdout.readline() == "held\n"
            with pytest.raises(ArtifactError, match=f"process {child.pid} has worked"), locked(run):
                pass
        finally:
            child.kill()
    assert json.loads((run / ".lock").read_text())["pid"] == child.pid
    with locked(run):
        assert json.loads((run / ".lock").read_text())["pid"] == os.getpid()
    assert list(run.iterdir()) == []


def test_a_folder_that_was_moved_away_meanwhile_is_not_had(tmp_path, monkeypatch):
    run = tmp_path / "x"
    run.mkdir()
    real = lock_module.fcntl.flock

    def moved(handle, flags):
        run.rename(tmp_path / "done")
        real(handle, flags)

    monkeypatch.setattr(lock_module.fcntl, "flock", moved)
    with pytest.raises(ArtifactError, match="another process works in it"), locked(run):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "x").write_text("mine")
    with (
        pytest.raises(ArtifactError, match=r"x: expected a folder .*, got a file"),
        locked(tmp_path / "x"),
    ):
        pass
    message = "x/y: cannot be written to (Not a directory); give another --merged"
    with pytest.raises(ArtifactError) as caught, locked(tmp_path / "x" / "y", flag="--merged"):
        pass
    assert str(caught.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("fails", ["os.mkdir", "unsee.artifacts.lock.atomic_write_json"])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch, fails):
    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(fails, read_only)
    with pytest.raises(ArtifactError) as caught, locked(tmp_path / "x"):
        pass
    monkeypatch.undo()
    assert str(caught.value) == (
        f"{tmp_path}/x: cannot be written to (Read-only file system); give another --out"
    )
    assert list(tmp_path.iterdir()) == []
