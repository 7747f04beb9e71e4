"""Tasks in processes of their own: what they tell, and what happens when one of them ends early."""

import importlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from unsee.errors import DataError, UnseeError
from unsee.processes import side_by_side

TASKS = '''
import os
import signal
import time

from unsee.errors import DataError


def counts(told, *, name):
    for step in (1, 2, 3):
        told(name, step, os.getpid())


def meets(told, *, mine, theirs):
    """Ends once the other has begun."""
    mine.touch()
    while not theirs.exists():
        time.sleep(0.01)


def hangs(told):
    told(os.getpid())
    time.sleep(600)


def ticks(told):
    while True:
        told(os.getpid())
        time.sleep(0.05)


def fails(told):
    raise DataError("people/s1: no photo", "people/s2: no photo")


def breaks(told):
    return {}["missing"]


def is_killed(told):
    os.kill(os.getpid(), signal.SIGKILL)
'''
SCRIPT = """
import signal
import sys

import tasks
from unsee.processes import side_by_side

if __name__ == "__main__":
    # Whoever started this may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = getattr(tasks, sys.argv[1])
    side_by_side({"base": task, "gold": task}, lambda pid: print(pid, flush=True))
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A module that fresh processes can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tasks.py").write_text(TASKS)
    (folder / "script.py").write_text(SCRIPT)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    yield importlib.import_module("tasks")
    patch.undo()
    del sys.modules["tasks"]


def gone(pid):
    """Whether a process has ended, or has only to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def test_all_is_told_here_in_each_ones_order(tasks):
    told = []
    named = {name: partial(tasks.counts, name=name) for name in ("base", "gold")}
    side_by_side(named, lambda *message: told.append(message))
    for name in named:
        assert [step for who, step, _ in told if who == name] == [1, 2, 3]
    pids = {who: pid for who, _, pid in told}
    assert len({*pids.values(), os.getpid()}) == 3


def test_they_run_at_once(tasks, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    side_by_side(
        {
            "base": partial(tasks.meets, mine=one, theirs=two),
            "gold": partial(tasks.meets, mine=two, theirs=one),
        },
        print,
    )


@pytest.mark.parametrize("bad", ["base", "gold"])
def test_what_one_raises_is_raised_here_and_ends_the_other(tasks, bad):
    other = {"base": "gold", "gold": "base"}[bad]
    pids = []
    with pytest.raises(DataError) as raised:
        side_by_side({bad: tasks.fails, other: tasks.hangs}, pids.append)
    assert raised.value.args == ("people/s1: no photo", "people/s2: no photo")
    assert all(gone(pid) for pid in pids)


def test_a_bug_keeps_the_traceback_of_its_own_process(tasks):
    with pytest.raises(KeyError, match="missing") as raised:
        side_by_side({"base": tasks.breaks}, print)
    assert 'return {}["missing"]' in raised.value.__notes__[0]


def test_one_that_is_killed_is_named_and_ends_the_other(tasks):
    pids = []
    with pytest.raises(UnseeError) as raised:
        side_by_side({"base": tasks.hangs, "gold": tasks.is_killed}, pids.append)
    assert str(raised.value) == (
        "gold: its process ended by signal 9, before its work was done; free some memory if that "
        "ran out, and run the same command again: what is done is kept"
    )
    assert all(gone(pid) for pid in pids)


def test_what_goes_wrong_here_ends_both(tasks):
    pids = []

    def full(pid):
        pids.append(pid)
        if len(pids) == 2:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        side_by_side({"base": tasks.hangs, "gold": tasks.hangs}, full)
    assert all(gone(pid) for pid in pids)


@pytest.fixture
def started(tasks):
    """Starts the script on a task -> its process and the ids of the two that it started."""
    processes = []

    def start(task):
        folder = Path(tasks.__file__).parent
        process = subprocess.Popen(
            [sys.executable, folder / "script.py", task],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout is not None
        pids = set()
        while len(pids) < 2:
            pids.add(int(process.stdout.readline()))
        return process, pids

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_ctrl_c_ends_all_and_only_the_one_that_was_typed_to_speaks(started):
    process, pids = started("hangs")
    # A terminal interrupts the whole group.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert all(gone(pid) for pid in pids)


def test_they_end_when_the_one_that_started_them_is_killed(started):
    process, pids = started("ticks")
    process.kill()
    process.communicate(timeout=20)
    until = time.monotonic() + 20
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
