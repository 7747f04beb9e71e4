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
from peft import PeftConfig
from transformers import AutoModelForImageTextToText

import unsee.replies
from unsee.artifacts import apply_weights, atomic_write_json, load_manifest, versions
from unsee.artifacts.files import file_record
from unsee.cli import app
from unsee.cli.session import hush, version_of
from unsee.errors import ArtifactError
from unsee.models.load import load
from unsee.report import evidence
from unsee.report import storage as reports
from unsee.report.evidence import Figure

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
    tensors_module: Any = safetensors.torch
    replies_module: Any = unsee.replies
    serialize, fsync, write = tensors_module.serialize_file, os.fsync, os.write

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

    tensors_module.serialize_file = torn_tensors
    os.fsync = torn_file
    replies_module.os = _With(os, write=torn_lines)


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
            ["unsee.forget", "unsee.audit", "unsee.export", "unsee.sources", *MODELS]
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

    def opened(self, job: str) -> dict[str, bool]:
        """What opens of what the job writes, by folder -> whether it is whole."""
        found: dict[str, bool | None] = {}
        for folder in [self.place, *self.place.rglob("*")]:
            name = str(folder.relative_to(self.place))
            if folder.is_dir() and job.startswith("forget"):
                found[name] = self._as_run(folder, self.home / job / "run")
            if folder.is_dir() and job.startswith("export") and name != "run":
                found[name] = _elsewhere(folder, self.home / job / "out")
        if job == "audit":
            found["report"] = self._as_report()
        return {name: whole for name, whole in found.items() if whole is not None}

    def _as_run(self, folder: Path, wanted: Path) -> bool | None:
        try:
            manifest = load_manifest(folder)
        except ArtifactError:
            return None
        if manifest["kind"] == "weights":
            try:
                apply_weights(load(self.base, dtype="float32", device="cpu"), folder)
            except ArtifactError:
                return None
        return manifest["files"] == load_manifest(wanted)["files"]

    def _as_report(self) -> bool | None:
        try:
            report = reports.load(self.place / "run")
        except ArtifactError:
            return None
        return report.models == reports.load(self.home / "audit" / "run").models

    def different(self, job: str) -> list[str]:
        """Names of what the folder has otherwise than that of the undisturbed job, or not at all.

        Of a manifest, a report and its evidence the values are compared, as they tell the time
        too; the pages are made of the report.
        """
        made, wanted = contents(self.place), contents(self.home / job)
        pages = {"run/report.md", "run/report.html"}
        names = [n for n in made | wanted if made.get(n) != wanted.get(n)]
        return [
            name
            for name in names
            if not (name in made and name in wanted)
            or not (name in pages or self._same_values(job, name))
        ]

    def _same_values(self, job: str, name: str) -> bool:
        if name == "run/evidence.json":
            return _figures(self.place / "run") == _figures(self.home / job / "run")
        if name not in ("run/manifest.json", "run/report.json"):
            return False
        tables = [
            json.loads((folder / name).read_text()) for folder in (self.place, self.home / job)
        ]
        for table in tables:
            del table["cost"]
            table.pop("created", None)
            table.get("data", {}).pop("audit_wall_s", None)
        return tables[0] == tables[1]


def _figures(folder: Path) -> list[Figure]:
    """What evidence says apart from its salt, and from the time that report.json tells."""
    found = evidence.load(folder)
    assert isinstance(found, evidence.Evidence)
    assert evidence.broken_links(found) == []
    return found.of(Figure)


def _elsewhere(folder: Path, wanted: Path) -> bool | None:
    """Whether a folder that a stock library opens is whole; None if none does."""
    for opens in (AutoModelForImageTextToText.from_pretrained, PeftConfig.from_pretrained):
        try:
            opens(str(folder))
        except Exception:  # noqa: BLE001 - whatever a stock library says to it
            continue
        return contents(folder) == contents(wanted)
    return None


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
    for job in jobs:
        trials.reference(job)
    moments = {job: trials.moments(job, rng) for job in jobs}
    killed: Counter[str] = Counter(dict.fromkeys(("clock", "call", "write"), 0))
    left: Counter[str] = Counter(nothing=0, whole=0, half=0)
    commands, done, identical = 0, 0, 0
    while killed.total() < kills:
        job = jobs[done % len(jobs)]
        trials.begin(job)
        due = min(rng.randint(1, 3), kills - killed.total())
        while True:
            moment = next(moments[job]) if due else None
            ended = trials.run(job, moment)
            commands += 1
            where = f"{job} at {moment}"
            # An export that has its name is not made twice.
            if ended.code == 0 or ((trials.place / "out").exists() and ended.code == 2):
                break
            if moment is None or ended.code != -signal.SIGKILL:
                raise AssertionError(f"{where}: {ended}")
            killed[moment.kind] += 1
            due -= 1
            opened = trials.opened(job)
            left["half" if not all(opened.values()) else "whole" if opened else "nothing"] += 1
            if not all(opened.values()):
                print(f"{where}: {opened}", file=sys.stderr)  # noqa: T201
        done += 1
        if different := trials.different(job):
            print(f"{where}: {different}", file=sys.stderr)  # noqa: T201
        identical += not different
        print(f"{job}: {killed.total()} of {kills}", file=sys.stderr)  # noqa: T201
    return {
        "kills": dict(killed),
        "kills_that_left_to_open": dict(left),
        "commands": commands,
        "jobs": done,
        "jobs_with_identical_bits": identical,
    }


def main() -> None:
    """Kill 100 times and write what came of it; exits with 1 if anything was lost."""
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
    sys.exit(
        any(
            each["kills_that_left_to_open"]["half"]
            or each["jobs_with_identical_bits"] < each["jobs"]
            for each in found.values()
        )
    )


if __name__ == "__main__":
    main()
