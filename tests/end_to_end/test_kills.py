"""Work that is killed, interrupted or out of space opens nowhere, and goes on to the same bits."""

import importlib
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def interruptible():
    """A shell lets what it starts in the background ignore Ctrl+C, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def kills():
    """The script, which 100 kills are made with."""
    with pytest.MonkeyPatch.context() as patch:
        # Its processes import it by its name.
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("kill_at_random")


@pytest.fixture(scope="module")
def trials(kills, knowing_folder, people, tmp_path_factory):
    return kills.Trials(tmp_path_factory.mktemp("trials"), knowing_folder, people)


def finishes(trials, job, words=None):
    ended = trials.run(job, words=words)
    assert ended.code == 0, ended
    assert trials.different(job) == []


def one_line(ended):
    assert ended.code == 2, ended
    assert ended.output.count("\n") == 1
    return ended.output.removesuffix("\n")


@pytest.mark.parametrize("job", ["forget", "forget_eraser", "audit", "export_merged"])
def test_killed_in_a_write_and_again_between_two(trials, kills, job):
    writes = trials.reference(job).counts["write"]
    trials.begin(job)
    for moment in (
        kills.Moment("write", (writes + 1) // 2, share=0.4),
        kills.Moment("call", 6),
    ):
        ended = trials.run(job, moment)
        assert ended.code == -signal.SIGKILL, ended
        assert all(trials.opened(job).values())
    finishes(trials, job)


def test_killed_once_the_run_is_whole(trials, kills):
    """What only an unfinished run needs is cleared away by the same command."""
    calls = trials.reference("forget").counts["call"]
    for at in range(calls, 0, -1):
        trials.begin("forget")
        ended = trials.run("forget", kills.Moment("call", at))
        assert ended.code == -signal.SIGKILL, ended
        if (trials.place / "run" / "checkpoint.safetensors").exists():
            break
    assert trials.opened("forget") == {"run": True}
    ended = trials.run("forget")
    assert f"{trials.place}/run: was done already" in ended.output
    assert trials.different("forget") == []


@pytest.mark.parametrize("job", ["forget", "audit", "export_merged"])
def test_interrupted_it_says_how_to_go_on(trials, kills, job):
    calls = trials.reference(job).counts["call"]
    trials.begin(job)
    moment = kills.Moment("call", calls * 2 // 3, number=signal.SIGINT)
    ended = trials.run(job, moment)
    assert ended.code == 130, ended
    start = "unsee: interrupted; what is done is kept, go on with: unsee "
    assert ended.output.startswith(start)
    assert ended.output.count("\n") == 1
    assert (trials.place / "run" / "checkpoint.safetensors").exists() == (job == "forget")
    assert trials.opened(job) == {}
    words = shlex.split(ended.output.removeprefix(start))
    assert words == trials.words[job]
    finishes(trials, job, words)


@pytest.mark.parametrize(
    ("job", "limit", "message"),
    [
        (
            "forget",
            60_000,
            "run/.partial/checkpoint.safetensors: cannot be written (Error while serializing: I/O "
            "error: File too large (os error 27)); free some space, or give another folder",
        ),
        (
            "forget_eraser",
            1_000,
            "run/answers.jsonl: cannot be read or written (No space left on device); what is done "
            "is kept; free some space or allow it, or give another folder",
        ),
        (
            "audit",
            12_000,
            "run/answers.jsonl: cannot be read or written (No space left on device); what is done "
            "is kept; free some space or allow it, or give another folder",
        ),
        (
            "audit",
            100_000,
            "run/report.html: cannot be read or written (File too large); what is done is kept; "
            "free some space or allow it, or give another folder",
        ),
        (
            "export_merged",
            1_000,
            ".out.partial/out: cannot be read or written (File too large); what is done is kept; "
            "free some space or allow it, or give another folder",
        ),
        (
            "export_merged",
            100_000,
            ".out.partial/out: cannot be written (Error while serializing: I/O error: File too "
            "large (os error 27)); free some space, or give another folder",
        ),
    ],
)
def test_without_space_it_says_so_and_goes_on_with_space(trials, job, limit, message):
    """A limit on the size of files stands for a full disk: the system refuses the same writes."""
    trials.reference(job)
    trials.begin(job)
    assert one_line(trials.run(job, limit=limit)) == f"unsee: {trials.place}/{message}"
    assert all(trials.opened(job).values())
    finishes(trials, job)


FULL = """
set -e
mount -t tmpfs -o size=2m none "$0"
head -c 1900k /dev/zero > "$0/fill"
code=0
"$@" || code=$?
test $code = 2
test ! -e "$0/run/manifest.json"
rm "$0/fill"
"$@"
cp -a "$0/." "$0.done"
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="no tmpfs can be mounted here",
)
def test_a_full_disk(trials):
    trials.reference("forget")
    trials.begin("forget")
    unsee = [sys.executable, "-c", "from unsee.cli import main; main()", *trials.words["forget"]]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, str(trials.place), *unsee],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stderr == (
        f"unsee: {trials.place}/run/.partial/checkpoint.safetensors: cannot be written (Error "
        "while serializing: I/O error: No space left on device (os error 28)); free some space, or "
        "give another folder\n"
    )
    trials.place.rmdir()
    trials.place.with_name("work.done").rename(trials.place)
    assert trials.different("forget") == []
