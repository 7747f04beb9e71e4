"""Kill work at random moments, go on, and compare with the same work that nobody disturbed.

    python tests/end_to_end/kill_at_random.py --out docs/results/kills.json

`unsee forget`, `audit` and `export` run on a tiny LLaVA in processes of their own and are ended by
SIGKILL at seeded moments: after a time on the clock, before the n-th change of the file system, or
in the midst of the n-th write, which leaves part of a file. After every kill whatever opens must be
whole; then the same command is given again until it is done, and every weight, answer and score
must have the bits, and the folder the files, of an undisturbed run.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import unsee.replies
from peft import PeftConfig
from transformers import AutoModelForImageTextToText

from unsee.artifacts import apply_weights, atomic_write_json, load_manifest, versions
from unsee.artifacts.files import file_record
from unsee.cli import app
from unsee.cli.session import hush, version_of
from unsee.errors import ArtifactError
from unsee.models.load import load
from unsee.report import storage as reports

FEW = (
    "--set",
    "method.steps=6",
    "--set",
    "method.checkpoint_every=2",
    "--set",
    "method.variants=2",
)
LORA = ("--method", "grad_diff", "--set", "method.lora_rank=2", "--set", "method.lr=1e-2")
ERASER = (
    *("--method", "mllmeraser", "--set", "method.direction=subject", "--set", "method.variants=2"),
    *("--set", "method.layers=[1,2]", "--set", "method.false_fire=0.05"),
)
# What the script does, by the verb that is killed; together 100.
SHARES = {
    "forget": (50, ("forget", "forget_lora")),
    "audit": (30, ("audit",)),
    "export": (20, ("export_merged", "export_peft")),
}
# Audit events of what changes a file system, beside `open` to write.
CHANGES = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.link"}
)
MODELS = ("unsee.models.tiny", "transformers.models.llava.modeling_llava")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Moment:
    """When a process is signalled.

    Attributes:
        kind: "clock", "call" or "write".
        at: Seconds; or the number of the change or the write, from 1.
        share: Part of that write that reaches the file, 0 to 1.
        number: Of the signal.
    """

    kind: str
    at: float
    share: float = 0.5
    number: int = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code; negative is a signal.
        output: What it printed.
        counts: Changes and writes, where it came to its end.
        seconds: Wall time.
    """

    code: int
    output: str
    counts: dict[str, int]
    seconds: float


def work(words: list[str], moment: Moment | None, limit: int | None, log: Path, pipe: Connection):
    """The command line in this process, which signals itself at its moment.

    Args:
        words: After `unsee`.
        moment: One on the clock is the parent's affair.
        limit: Largest file in bytes; a longer write fails, as on a full disk.
        log: File for stdout and stderr.
        pipe: Told when the work begins, and what was counted.
    """
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = ["unsee", *words]
    counts = {"call": 0, "write": 0}

    def reached(kind: str) -> bool:
        counts[kind] += 1
        return moment is not None and (moment.kind, moment.at) == (kind, counts[kind])

    _count_changes(log.parent, lambda: reached("call") and _signal(moment))
    _tear_writes(lambda: moment if reached("write") else None)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pipe.send("begins")
    try:
        app()
    finally:
        pipe.send(counts)


def _signal(moment: Moment | None) -> None:
    assert moment is not None
    os.kill(os.getpid(), moment.number)


def _count_changes(home: Path, each: Callable[[], object]) -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            counted = isinstance(args[2], int) and args[2] & WRITING
        else:
            counted = event in CHANGES
        # Names relative to an open folder are those of a tree that is removed.
        if counted and isinstance(args[0], str | bytes | os.PathLike):
            path = os.fsdecode(args[0])
            if not path.startswith("/") or path.startswith(f"{home}/"):
                each()

    sys.addaudithook(hook)


def _tear_writes(reached: Callable[[], Moment | None]) -> None:
    """Has writes of tensors, of whole files and of lines end in their midst."""
    serialize: Any = vars(safetensors.torch)["serialize_file"]
    fsync, write = os.fsync, os.write

    def torn_tensors(tensors: Any, filename: Any, **more: Any) -> None:
        serialize(tensors, filename, **more)
        if moment := reached():
            os.truncate(filename, int(os.path.getsize(filename) * moment.share))
            # Releases of safetensors differ: a file of its name, or one beside it.
            if moment.share > 0.5:
                os.replace(filename, Path(filename).with_name(".tmpA1b2C3"))
            _signal(moment)

    def torn_file(handle: int) -> None:
        if moment := reached():
            # What was opened to be read, in order to be synced, is written already.
            if os.get_blocking(handle) and _writable(handle):
                os.ftruncate(handle, int(os.fstat(handle).st_size * moment.share))
            _signal(moment)
        fsync(handle)

    def torn_lines(handle: int, content: bytes) -> int:
        if moment := reached():
            write(handle, content[: int(len(content) * moment.share)])
            _signal(moment)
        return write(handle, content)

    vars(safetensors.torch)["serialize_file"] = torn_tensors
    os.fsync = torn_file
    vars(unsee.replies)["os"] = _With(os, write=torn_lines)


def _writable(handle: int) -> bool:
    import fcntl

    return fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


class _With:
    """A module in which something is replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Trials:
    """Jobs on a tiny model, each in one folder that is made anew for it.

    Args:
        home: Empty folder.
        base: Folder of a model that knows the people.
        people: Folder with `forget`, `retain`, `general` and `strangers`.
    """

    def __init__(self, home: Path, base: Path, people: Path) -> None:
        self.home, self.base = home, base
        self.place = home / "work"
        self._log = home / "output.txt"
        self._references: dict[str, Ended] = {}
        run = str(self.place / "run")
        sides = [f"--{side}={people / side}" for side in ("retain", "general", "strangers")]
        sides += [f"--subject={people / 'forget'}", "--quiet"]
        forget = ["forget", str(base), *sides, "--out", run]
        self.words = {
            "forget": [*forget, *FEW],
            "forget_lora": [*forget, *FEW, *LORA],
            "forget_eraser": [*forget, *ERASER],
            "audit": ["audit", str(base), *sides, "--artifact", run],
            "export_merged": ["export", run, "--merged", str(self.place / "out")],
            "export_peft": ["export", run, "--peft", str(self.place / "out")],
        }
        self._before = {
            "audit": "forget",
            "export_merged": "forget",
            "export_peft": "forget_lora",
        }
        # Children are forked from a process that has done nothing but import.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(
            ["unsee.forget", "unsee.audit", "unsee.export", "unsee.cli.references", *MODELS]
        )

    def begin(self, job: str) -> None:
        """Make the folder as it is before a job."""
        made_by = self._before.get(job)
        if made_by is not None:
            self.reference(made_by)
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if made_by is not None:
            shutil.copytree(self.home / made_by / "run", self.place / "run")

    def reference(self, job: str) -> Ended:
        """The job undisturbed, done once; its folder is kept under the job's name."""
        if job not in self._references:
            self.begin(job)
            ended = self.run(job)
            if ended.code:
                raise AssertionError(f"{job}: exit {ended.code}: {ended.output}")
            self.place.rename(self.home / job)
            self._references[job] = ended
        return self._references[job]

    def run(
        self,
        job: str,
        moment: Moment | None = None,
        *,
        limit: int | None = None,
        words: list[str] | None = None,
    ) -> Ended:
        """Give the command of a job, or `words`."""
        here, there = self._processes.Pipe(duplex=False)
        process = self._processes.Process(
            target=work, args=(words or self.words[job], moment, limit, self._log, there)
        )
        process.start()
        there.close()
        here.recv()
        started = time.monotonic()
        if moment is not None and moment.kind == "clock":
            process.join(moment.at)
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, moment.number)
        try:
            counts = here.recv()
        except EOFError:
            counts = {}
        process.join()
        assert process.exitcode is not None
        return Ended(
            process.exitcode,
            self._log.read_text(errors="replace"),
            counts,
            time.monotonic() - started,
        )

    def moments(self, job: str, rng: random.Random) -> Iterator[Moment]:
        """Moments of a job, of each kind in turn."""
        undisturbed = self.reference(job)
        while True:
            yield Moment("clock", rng.uniform(0, undisturbed.seconds))
            for kind in ("call", "write"):
                at = rng.randint(1, undisturbed.counts[kind])
                yield Moment(kind, at, share=rng.random())

    def check(self, job: str) -> int:
        """How many folders open, of those that the job writes; each must be whole.

        Raises:
            AssertionError: If one opens that is not.
        """
        opened = 0
        wanted = self.home / job
        for folder in [self.place, *self.place.rglob("*")]:
            if folder.is_dir():
                opened += self._opens_as_run(job, folder)
                if job.startswith("export") and folder != self.place / "run":
                    opened += self._opens_elsewhere(folder, wanted / "out")
        if (self.place / "run" / reports.FILE_NAME).exists():
            assert reports.load(self.place / "run").models == reports.load(wanted / "run").models
            opened += 1
        return opened

    def _opens_as_run(self, job: str, folder: Path) -> bool:
        try:
            manifest = load_manifest(folder)
        except ArtifactError:
            return False
        assert manifest["files"] == load_manifest(self.home / job / "run")["files"], folder
        if manifest["kind"] == "weights":
            apply_weights(load(self.base, dtype="float32", device="cpu"), folder)
        return job.startswith("forget")

    def _opens_elsewhere(self, folder: Path, wanted: Path) -> bool:
        for opens in (AutoModelForImageTextToText.from_pretrained, PeftConfig.from_pretrained):
            try:
                opens(str(folder))
            except Exception:  # noqa: BLE001 - whatever a stock library says to it
                continue
            assert contents(folder) == contents(wanted), folder
            return True
        return False

    def compare(self, job: str) -> None:
        """Refuse a difference between the folder and that of the undisturbed job.

        Raises:
            AssertionError: Names the file.
        """
        made, wanted = contents(self.place), contents(self.home / job)
        assert made.keys() == wanted.keys(), set(made) ^ set(wanted)
        different = sorted(name for name in made if made[name] != wanted[name])
        # Of these two the values are compared, as they tell the time; pages are made of the report.
        told = {"run/manifest.json", "run/report.json", "run/report.md", "run/report.html"}
        assert set(different) <= told, different
        for name in told & set(made) - {"run/report.md", "run/report.html"}:
            tables = [
                json.loads((folder / name).read_text()) for folder in (self.place, self.home / job)
            ]
            for table in tables:
                for key in ("created", "cost"):
                    table.pop(key, None)
                table.get("data", {}).pop("audit_wall_s", None)
            assert tables[0] == tables[1], name


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by name; "" for a folder."""
    return {
        str(path.relative_to(folder)): file_record(path)["sha256"] if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def kill(trials: Trials, jobs: tuple[str, ...], kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill jobs in turn, each one to three times before it is let finish.

    Returns:
        Counts, for the result.
    """
    killed, opened, commands, done = Counter(), 0, 0, 0
    for job in jobs:
        trials.reference(job)
    moments = {job: trials.moments(job, rng) for job in jobs}
    while sum(killed.values()) < kills:
        job = jobs[done % len(jobs)]
        trials.begin(job)
        left = min(rng.randint(1, 3), kills - sum(killed.values()))
        finished = False
        while not finished:
            moment = next(moments[job]) if left else None
            ended = trials.run(job, moment)
            commands += 1
            where = f"{job} at {moment}: {ended}"
            assert ended.code in (0, -signal.SIGKILL), where
            finished = ended.code == 0
            if moment is not None and not finished:
                killed[moment.kind] += 1
                left -= 1
                opened += bool(trials.check(job))
                finished = (trials.place / "out").exists()
                if finished:
                    # An export that has its name is not made twice.
                    again = trials.run(job)
                    assert again.code == 2, where
                    assert "expected a new or an empty folder, got one with files" in again.output
        trials.compare(job)
        done += 1
        print(job, done, dict(killed), file=sys.stderr)  # noqa: T201
    return {
        "kills": {kind: killed[kind] for kind in ("clock", "call", "write")},
        "commands": commands,
        "jobs": done,
        "jobs_with_identical_bits": done,
        "kills_that_left_half_of_what_opens": 0,
        "kills_that_left_the_whole": opened,
    }


def main() -> None:
    """Kill 100 times and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="Of the 100 kills.")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    hush()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import taught, write_people

    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        (home / "people").mkdir()
        people = write_people(home / "people")
        trials = Trials(home, taught(home / "base", people), people)
        found = {
            verb: kill(trials, jobs, round(count * given.share), rng)
            for verb, (count, jobs) in SHARES.items()
        }
    result = {
        "command": shlex.join(["python", "tests/end_to_end/kill_at_random.py", *sys.argv[1:]]),
        "versions": {**versions(), "safetensors": version_of("safetensors")},
        "device": f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "seed": given.seed,
        "kills": sum(sum(each["kills"].values()) for each in found.values()),
        "verbs": found,
    }
    if given.out is not None:
        atomic_write_json(given.out, result)
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
