"""What gets past MLLMEraser on the built-in world: its gate and its answers under every change.

    python benchmarks/eraser_breaks.py [--collect]
    python benchmarks/eraser_breaks.py --dev variants=24 ...

The questions of `forget_unseen`, and as many about people to keep and bystanders, are asked under
the tries of attacks (`unsee.attacks`) on photos and questions, and on photos made to keep the gate
silent. Beside what comes back stand the area under the ROC curve of the gate's margin, forgotten
people's questions against others' under the same change, and how often it fires on either. Draws
A, B and C, seed i on the i-th of them, five photos a person, calibrated gate; before and after what
was repaired (`VERSIONS`), which was chosen on development people.

Cells are kept in `runs/eraser-breaks`; when all are there, or with `--collect`,
`docs/results/eraser-breaks.{json,md}` are written. `--dev` tries settings on the development draw,
and prints the same table.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Table, kept, provenance, write
from sklearn.metrics import roc_auc_score

from unsee.attacks import ATTACKS
from unsee.attacks.gate_images import gate_margins
from unsee.attacks.protocol import Given, Try
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.data.world import Part
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.protocol import erased
from unsee.erasers.steering import Reads
from unsee.metrics.answers import mentions
from unsee.metrics.intervals import mean_interval
from unsee.metrics.sets import chance_accuracy
from unsee.models.load import VLM
from unsee.replies import Replies
from unsee.settings import overrides
from unsee.trials import spread
from unsee.world import materialise

RESULT = Path("docs/results/eraser-breaks.json")
DRAWS = ("A", "B", "C")
# Of a draw's questions, spread evenly, on either side.
QUESTIONS = 40
CHANGES = (
    "crop",
    "blur",
    "noise",
    "occlusion",
    "collage",
    "rewording",
    "reordering",
    "preamble",
    "turns",
    "describe",
    "prefill",
    "gate_images",
)
# Where the last prompt token is not the end of the only turn; elsewhere both versions are one.
CONVERSATIONS = ("turns", "describe", "prefill")
VERSIONS: dict[str, tuple[Reads, tuple[str, ...]]] = {
    "before": ("last", CONVERSATIONS),
    "after": ("turns", CHANGES),
}
UNCHANGED = "as it is"
MODELS = ("base", "erased", "gold")


def chosen(records: Sequence[Record]) -> tuple[Record, ...]:
    """So many open questions, evenly over the records."""
    return spread([record for record in records if record.form == "open"], QUESTIONS)


def tries(vlm: VLM, given: Given, changes: Sequence[str]) -> dict[str, Try]:
    """Every try of some changes, by both names; the first changes nothing."""
    found = {UNCHANGED: Try(UNCHANGED)}
    for name in changes:
        plan = ATTACKS.get(name)().tries(vlm, given)
        if isinstance(plan, str):
            raise SystemExit(f"{name}: cannot be run, {plan}")
        found |= {f"{name}: {one.name}": one for one in plan}
    return found


def margins(vlm: VLM, records: Sequence[Record]) -> list[float]:
    """By how much the gate decides to act on each prompt, in the order of the records."""
    found: list[float] = []
    for start in range(0, len(records), 60):
        batch = encode(vlm, records[start : start + 60], answers=False, side="left")
        with torch.inference_mode():
            found += gate_margins(vlm, batch.to(vlm.device)).amax(0).tolist()
    return found


@dataclass(frozen=True)
class Run:
    """One eraser under some changes."""

    draw: str
    seed: int
    reads: Reads
    changes: tuple[str, ...]
    part: Part = "report"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def eraser(self) -> MLLMEraser:
        """What is fitted."""
        return MLLMEraser.model_validate(dict(self.settings))

    @property
    def key(self) -> str:
        """Name of its file; all settings count."""
        changes = {name: ATTACKS.get(name)().model_dump(mode="json") for name in self.changes}
        content = [self.reads, self.eraser.model_dump(mode="json"), changes, QUESTIONS]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]
        return f"{self.draw}-{self.seed}-{self.part}-{digest}"


def measured(table: Table, run: Run) -> dict[str, Any]:
    """Margins and rightness of every question under every try, base and gold beside it."""
    split = table.split(run.draw, run.part)
    vlm, gold = table.vlm("base"), table.vlm("gold")
    own = chosen(split.audit["forget_unseen"])
    others = chosen([*split.audit["retain_unseen"], *split.audit["bystander"]])
    eraser = run.eraser.fit(vlm, split, seed=run.seed)
    eraser = replace(eraser, plan=replace(eraser.plan, reads=run.reads))
    told = {
        name: Replies(
            table.vlm("gold" if name == "gold" else "base"),
            name=name,
            mark=run.key if name == "erased" else "",
            path=table.folder / "answers.jsonl",
        )
        for name in MODELS
    }
    given = Given(split, has_eraser=True, seed=run.seed)
    rows: dict[str, dict[str, Any]] = {}
    with erased(vlm, [eraser]):
        for name, one in tries(vlm, given, run.changes).items():
            asked = one.ask(own, told["erased"].answers)
            beside = [r for r in one.ask(others, told["erased"].answers) if r is not None]
            posed = [record for record in asked if record is not None]
            rows[name] = {
                "subjects": [record.subject for record in posed],
                "margins": margins(vlm, posed),
                "others": margins(vlm, beside),
                "right": {"erased": right(told["erased"], posed)},
            }
    for model, opened in (("base", vlm), ("gold", gold)):
        for name, one in tries(opened, given, run.changes).items():
            asked = one.ask(own, told[model].answers)
            posed = [record for record in asked if record is not None]
            rows[name]["right"][model] = right(told[model], posed)
    return {"tries": rows, "notes": [dict(note) for note in eraser.notes]}


def right(told: Replies, records: Sequence[Record]) -> list[float]:
    """Whether each answer stands in the reply."""
    answers = told.answers(records)
    return [mentions(r, a) for r, a in zip(records, answers, strict=True)]


def cell(table: Table, run: Run) -> dict[str, Any]:
    """What was measured before, or now."""
    path = table.folder / f"{run.key}-{table.vlm('base').fingerprint}.json"
    return kept(path, table.split(run.draw, run.part), lambda: measured(table, run))


def pooled(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures of each try over the draws."""
    out: dict[str, dict[str, Any]] = {}
    for name in found[0]["tries"]:
        rows = [each["tries"][name] for each in found]
        subjects = [subject for row in rows for subject in row["subjects"]]
        own, others = (
            np.clip([m for row in rows for m in row[side]], -1e9, 1e9)
            for side in ("margins", "others")
        )
        truth = [1] * len(own) + [0] * len(others)
        scored = {}
        for model in MODELS:
            values = [value for row in rows for value in row["right"][model]]
            mean = mean_interval(values, subjects)
            scored[model] = {"value": mean.value, "ci": [mean.low, mean.high]}
        back = [value for row in rows for value in row["right"]["erased"]]
        out[name] = {
            "n": len(subjects),
            "others": len(others),
            "gate_auc": float(roc_auc_score(truth, np.concatenate([own, others]))),
            "fires": float((own > 0).mean()),
            "fires_on_others": float((others > 0).mean()),
            "right_where_it_fires": [
                float(np.array(back)[own > 0].sum()),
                int((own > 0).sum()),
            ],
            "accuracy": scored,
        }
    return out


def table_of(versions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: a row a try, the versions side by side."""
    head = ["change: try", "n", "base", "gold"]
    for name in versions:
        head += [f"erased, {name}", "gate AUC", "fires", "on others"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    whole = max(versions.values(), key=len)
    for name, row in whole.items():
        shown = [name, str(row["n"]), *(_share(row["accuracy"][m]) for m in ("base", "gold"))]
        for found in versions.values():
            here = found.get(name)
            if here is None:
                shown += ["-"] * 4
                continue
            shown += [_share(here["accuracy"]["erased"]), f"{here['gate_auc']:.4f}"]
            shown += [f"{100 * here['fires']:.1f}", f"{100 * here['fires_on_others']:.1f}"]
        out.append("| " + " | ".join(shown) + " |")
    return out


def _share(cell: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in cell["ci"])
    return f"{100 * cell['value']:.1f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    """Run the cells, or collect them, or try settings on the development draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/eraser-breaks"))
    parser.add_argument("--dev", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--reads", choices=("turns", "last"), default="turns", help="of --dev")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=CHANGES, help="of --dev")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of --dev")
    parser.add_argument("--collect", action="store_true", help="only if all cells are there")
    given = parser.parse_args()
    table = Table(materialise(), given.folder)
    if given.dev is not None:
        settings, changes = overrides(given.dev), tuple(given.changes)
        runs = [Run("dev", seed, given.reads, changes, "dev", settings) for seed in given.seeds]
        found = pooled([cell(table, run) for run in runs])
        print("\n".join([f"dev {given.reads} {settings}", *table_of({"dev": found})]))
        return
    versions: dict[str, Any] = {}
    for version, (reads, changes) in VERSIONS.items():
        runs = [Run(draw, seed, reads, changes) for seed, draw in enumerate(DRAWS)]
        found = []
        for run in runs:
            path = table.folder / f"{run.key}-{table.vlm('base').fingerprint}.json"
            if given.collect and not path.exists():
                raise SystemExit(f"{path}: not there; run without --collect first")
            found.append(cell(table, run))
            print(version, run.draw, round(found[-1]["wall_s"]), flush=True)
        versions[version] = pooled(found)
    collect(table, versions)


def collect(table: Table, versions: Mapping[str, Any]) -> None:
    """Write the result file and its page."""
    asked = [
        record
        for draw in DRAWS
        for record in table.split(draw, "report").audit["forget_unseen"]
        if record.form == "open"
    ]
    chance = chance_accuracy(asked)
    content = provenance("python benchmarks/eraser_breaks.py", table) | {
        "draws": DRAWS,
        "seeds": list(range(len(DRAWS))),
        "questions_a_draw": QUESTIONS,
        "chance": chance,
        "reads": {version: reads for version, (reads, _) in VERSIONS.items()},
        "changes": {name: ATTACKS.get(name)().model_dump(mode="json") for name in CHANGES},
        "versions": dict(versions),
    }
    write(RESULT, content)
    shares = [row["right_where_it_fires"] for row in versions["after"].values()]
    back, fired = (sum(share[place] for share in shares) for place in (0, 1))
    page = [
        "# Where MLLMEraser breaks",
        "",
        f"Made by `{content['command']}`; raw figures in `{RESULT.name}`. Draws "
        f"{', '.join(DRAWS)}, seed i on the i-th, {content['photos_per_person']} photos a person, "
        f"scope visual, calibrated gate at its defaults. {QUESTIONS} open questions a draw, evenly "
        "out of `forget_unseen`, asked under the tries of attacks; right if the answer stands in "
        "the reply, in per cent with the 95 % interval (bootstrap by person); chance is "
        f"{100 * (chance or 0):.0f} %. Gate AUC: area under the ROC curve of the gate's margin at "
        f"the turn that is asked last, these questions against {QUESTIONS} a draw out of "
        "`retain_unseen` and `bystander` under the same change. Fires: share of the questions, and "
        "of those about others, in per cent. "
        "Before: the gate reads at the last prompt token. After: at the end of each of the user's "
        "turns; where there is one turn and the answer has not begun, that is the same.",
        "Where base falls too, it is the model from which the change hides the person.",
        "",
        *table_of(versions),
        "",
        f"Where the gate fired, over all changes, {back:.0f} of {fired} answers came back.",
        "",
    ]
    RESULT.with_suffix(".md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
