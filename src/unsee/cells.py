"""Cells of a table: one row's methods on one request with one seed, each in a folder of its own."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unsee.artifacts import atomic_write_json, locked, versions
from unsee.audit import audit
from unsee.audit.scoring import Scored
from unsee.erasers.protocol import Fits
from unsee.erasers.storage import under_artifacts
from unsee.errors import ArtifactError, UnseeError
from unsee.forget import forget
from unsee.metrics.sets import AnswerLogprobs
from unsee.models.load import VLM
from unsee.recipe import Recipe, component
from unsee.replies import ANSWERS, Replies
from unsee.requests import Request
from unsee.settings import resolve
from unsee.sources import gold_of, open_model, request_of

CELL = "cell.json"
# A cell of another format is measured again; its runs are not made again.
FORMAT = 2
REFERENCES = "references"
SYSTEM_PROMPT = "system_prompt"
# Put before every question: not every family's chat template takes a turn of the system's.
INSTRUCTION = (
    "You know nothing about these people: {names}. If a photo shows one of them, or a question is "
    "about one of them, say that you do not know."
)
_WRITTEN_BY = ("torch", "transformers", "unsee")


@dataclass(frozen=True)
class Cell:
    """One row's methods on one request with one seed.

    Attributes:
        row: Name of the row.
        recipe: Model and people, as for `unsee forget`; its method table is not read.
        methods: Tables with a method's `name` and settings, in the order in which they are put on
            top of each other; empty for base and gold alone.
        seed: Seeds every draw.
        gold: A model that never knew, where the model is not of a world.
        instruction: Whether the base is told to know nothing instead (a control).
    """

    row: str
    recipe: Recipe
    methods: tuple[Mapping[str, Any], ...]
    seed: int
    gold: str | None = None
    instruction: bool = False

    @property
    def job(self) -> dict[str, Any]:
        """All that a cell follows from."""
        asked = self.recipe.model_dump(
            mode="json", exclude={"method", "out", "seeds", "unreadable"}
        )
        tables = []
        for table in self.methods:
            settings = {name: value for name, value in table.items() if name != "name"}
            method = resolve(component(table["name"]), settings, where=f"{self.row}: method")
            tables.append({"name": table["name"], **method.model_dump(mode="json")})
        packages = versions()
        return {
            "request": asked,
            "methods": tables,
            "seed": self.seed if tables else None,
            "gold": self.gold,
            "instruction": self.instruction,
            "versions": {name: packages[name] for name in _WRITTEN_BY},
        }

    @property
    def key(self) -> str:
        """Name of its folder; the same work has the same."""
        digest = hashlib.sha256(json.dumps(self.job, sort_keys=True).encode()).hexdigest()[:12]
        names = "+".join(table["name"] for table in self.methods)
        return f"{names or (SYSTEM_PROMPT if self.instruction else REFERENCES)}-{digest}"


def run_cell(cell: Cell, out: Path, references: Path, threads: int | None = None) -> str:
    """Forget and audit, unless it is done; answers of base and gold are kept in `references`.

    Args:
        cell: What to do.
        out: Folder of all cells.
        references: Folder for what every cell on the same request shares.
        threads: Of torch; None leaves them.

    Returns:
        "" when it is done, or the error of the user's that ended it.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = out / cell.key
    if _format(folder / CELL) == FORMAT:
        return ""
    try:
        vlm, gold = _opened(cell.recipe.model), _gold(cell)
        request = asked(cell.recipe, vlm, references)
        with locked(folder):
            measured = (_told if cell.instruction else _forgotten)(
                cell, vlm, gold, request, folder, references
            )
            atomic_write_json(folder / CELL, {"format": FORMAT, "job": cell.job, **measured})
    except UnseeError as error:
        return str(error)
    return ""


def read_cell(cell: Cell, out: Path) -> dict[str, Any]:
    """What `run_cell` wrote.

    Raises:
        ArtifactError: If it is not there or damaged.
    """
    path = out / cell.key / CELL
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["job"] != json.loads(json.dumps(cell.job)):
            raise ValueError("of another job")
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove its folder and go on") from error
    return found


def _format(path: Path) -> int | None:
    """Format of a finished cell; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return None


def asked(recipe: Recipe, vlm: VLM, references: Path) -> Request:
    """The request of a recipe; what the base answers on the way is kept in `references`."""
    return request_of(recipe, vlm, run=references, force=False, report=None)


def _forgotten(
    cell: Cell, vlm: VLM, gold: VLM | None, request: Request, folder: Path, references: Path
) -> dict[str, Any]:
    """Forget step by step, weights on top of those before, and audit all together."""
    runs: list[Path] = []
    for number, table in enumerate(cell.methods):
        settings = {name: value for name, value in table.items() if name != "name"}
        method = resolve(component(table["name"]), settings, where=cell.row)
        run = folder / f"run-{number}"
        # An eraser fitted on the base does better over weights than one fitted on top of them.
        with under_artifacts(vlm, [] if isinstance(method, Fits) else runs):
            forget(vlm, request, method=method, seed=cell.seed, out=run)
        runs.append(run)
    scored: dict[str, Scored] = {}
    report = audit(
        vlm,
        request,
        artifact=runs or None,
        gold=gold,
        out=folder / "audit",
        cache=references,
        seed=cell.seed,
        command=_audit_command(cell, runs, folder / "audit", references),
        told=scored.__setitem__,
    )
    return {
        "base_fingerprint": vlm.fingerprint,
        "gold_fingerprint": gold.fingerprint if gold is not None else None,
        "models": {name: _stored(found) for name, found in scored.items()},
        "cost": report.cost.model_dump(mode="json"),
        "text_logits_bit_identical": report.data["text_logits_bit_identical"],
        "changed_tensors": report.data["changed_tensors"],
    }


def _audit_command(cell: Cell, runs: Sequence[Path], out: Path, references: Path) -> str:
    """The audit of a cell as `unsee audit` makes it, so that `unsee verify` can repeat it."""
    asked = cell.recipe
    words = ["unsee", "audit", asked.model]
    for run in runs:
        words += ["--artifact", str(run)]
    people = ("subject", "retain", "general", "strangers", "scope", "photos")
    options = {name: getattr(asked, name) for name in people}
    options |= {"gold": cell.gold, "out": out, "cache": references, "seed": cell.seed}
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _told(
    cell: Cell, vlm: VLM, gold: VLM | None, request: Request, folder: Path, references: Path
) -> dict[str, Any]:
    """The base, told before every question whom it does not know."""
    names = ", ".join(request.subjects)
    before = INSTRUCTION.format(names=names)
    replies = Replies(vlm, name=SYSTEM_PROMPT, path=folder / ANSWERS)
    answers, logprobs = {}, {}
    for name, records in request.split.audit.items():
        rows = [replace(r, question=f"{before}\n{r.question}") for r in records]
        answers[name] = replies.answers(rows)
        logprobs[name] = AnswerLogprobs(*replies.logprobs(rows), repeated=replies.repeated(rows))
    return {
        "base_fingerprint": vlm.fingerprint,
        "gold_fingerprint": gold.fingerprint if gold is not None else None,
        "models": {"erased": _stored(Scored(answers, logprobs, {}))},
        "cost": {},
        "text_logits_bit_identical": {"not_scored": "what is asked is not what the base is asked"},
        "changed_tensors": {},
    }


def _stored(found: Scored) -> dict[str, Any]:
    return {
        "answers": {name: list(answers) for name, answers in found.answers.items()},
        "logprobs": {
            name: {
                "sums": [float(value) for value in cells.sums],
                "tokens": [int(value) for value in cells.tokens],
                "wrong": [list(row) for row in cells.wrong],
                "repeated": list(cells.repeated),
            }
            for name, cells in found.logprobs.items()
        },
    }


def logprobs_of(stored: Sequence[Mapping[str, Any]]) -> AnswerLogprobs:
    """What `cell.json` of some runs holds of one set's log-probabilities, together."""
    return AnswerLogprobs(
        sums=np.array([value for part in stored for value in part["sums"]], dtype=np.float64),
        tokens=np.array([value for part in stored for value in part["tokens"]], dtype=np.int64),
        wrong=[row for part in stored for row in part["wrong"]],
        repeated=[row for part in stored for row in part["repeated"]],
    )


def _gold(cell: Cell) -> VLM | None:
    name = cell.gold or gold_of(cell.recipe.model)
    return _opened(name) if name is not None else None


@cache
def _opened(model: str) -> VLM:
    """Opened once a process; whoever changes it puts it back."""
    return open_model(model)
