"""Methods of the table under every attack: what comes back above a model that never knew.

    python benchmarks/robustness.py [--rows vkd mllmeraser ...] [--collect]

The runs are those of `unsee compare recipes/world.toml`, which is to be run first; each is audited
with `--attacks all` and the control that is made of the base. Audits are kept beside their runs;
with all of them there, or with `--collect`, which names those that are not,
`docs/results/robustness.{json,md}` are written, and `robustness.svg`, what relearning brings back
at each budget. Scores of single questions come from the audits' evidence; the draws' questions are
pooled, and intervals are by person.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import conditions, write

from unsee.attacks import attacks_named
from unsee.audit import audit
from unsee.audit.control import AUTO
from unsee.cells import Cell, asked
from unsee.lineup import Lineup, read_comparison
from unsee.metrics.intervals import mean_interval
from unsee.metrics.recovery import AVERAGE_GAIN
from unsee.report import load
from unsee.report.evidence import Figure, Questions
from unsee.report.evidence import load as load_evidence
from unsee.report.plots import Curve, curves, recovered_by_budget
from unsee.report.schema import AttackScore, Report
from unsee.sources import gold_of, open_model

RESULT = Path("docs/results/robustness.json")
ROWS = ("vkd", "mllmeraser", "vkd + mllmeraser", "grad_diff", "npo", "mmunlearner", "manu")
COMMAND = "python benchmarks/robustness.py"
# Bars of VKD, in points above the model that never knew.
BARS = {"relearning": 5.0, "head_projection": 5.0, "int4": 2.0, "prompts": 5.0, "images": 5.0}


def folder_of(lineup: Lineup, cell: Cell) -> Path:
    """Where a cell's audit under attack lies."""
    return lineup.out / cell.key / "attacked"


def attack(lineup: Lineup, cell: Cell) -> None:
    """Audit one run under all attacks, unless that is done."""
    out = folder_of(lineup, cell)
    if (out / "report.json").exists():
        return
    model = cell.recipe.model
    vlm = open_model(model)
    shared = lineup.shared(cell)
    audit(
        vlm,
        asked(cell.recipe, vlm, shared),
        artifact=[lineup.out / cell.key / f"run-{n}" for n in range(len(cell.methods))],
        gold=open_model(gold_of(model) or model),
        out=out,
        cache=shared,
        seed=cell.seed,
        attacks=attacks_named("all"),
        control=AUTO,
        command=COMMAND,
    )


def samples(folder: Path, attack_name: str, model: str) -> tuple[list[float], list[str]]:
    """Scores of the questions that an attack asked, and whom each is about."""
    found = load_evidence(folder)
    if isinstance(found, str):
        raise SystemExit(f"{folder}: {found}")
    people = {entry.set: entry.people for entry in found.of(Questions)}
    figure = next(
        (f for f in found.of(Figure) if f.attack == attack_name and f.model == model), None
    )
    if figure is None:
        return [], []
    rows = [
        (score, f"{folder} {person}")
        for score, person in zip(figure.scores, people[figure.set], strict=True)
        if score is not None
    ]
    return [score for score, _ in rows], [person for _, person in rows]


def pooled(folders: Sequence[Path], reports: Sequence[Report], name: str) -> dict[str, Any]:
    """One attack on one row: base, erased and gold on all draws, and erased above gold."""
    cells = [report.models["erased"].attacks[name] for report in reports]
    scored = [cell for cell in cells if isinstance(cell, AttackScore)]
    if len(scored) < len(cells):
        why = next(cell for cell in cells if not isinstance(cell, AttackScore))
        return {"not_scored": why.not_scored}
    found: dict[str, Any] = {
        "group": scored[0].group or name,
        "power": [cell.power for cell in scored],
        "power_why": [cell.power_why for cell in scored],
    }
    told = {m: [samples(folder, name, m) for folder in folders] for m in ("base", "erased", "gold")}
    for model, parts in told.items():
        scores = [score for part, _ in parts for score in part]
        people = [person for _, part in parts for person in part]
        if not scores:
            return found | {"not_scored": "a score of its own kind; see the reports"}
        interval = mean_interval(scores, people)
        found[model] = {
            "value": interval.value,
            "ci": [interval.low, interval.high],
            "n": interval.n,
        }
    above = [
        e - g
        for (erased, _), (gold, _) in zip(told["erased"], told["gold"], strict=True)
        for e, g in zip(erased, gold, strict=True)
    ]
    people = [person for _, part in told["erased"] for person in part]
    interval = mean_interval(above, people)
    found["above_gold"] = {"value": interval.value, "ci": [interval.low, interval.high]}
    gains = [cell.gain.value for cell in scored if cell.gain is not None]
    return found | ({"average_gain": gains} if gains else {})


def relearned(row: str, reports: Sequence[Report]) -> list[Curve]:
    """What relearning brings back of a row at each budget, averaged over the draws."""
    shares: dict[Any, tuple[float, ...]]
    by_draw = [{curve.name: curve for curve in curves(report)} for report in reports]
    found = []
    for name, first in by_draw[0].items():
        drawn = [own.get(name) for own in by_draw]
        alike = [c for c in drawn if c is not None and c.budgets == first.budgets]
        if name.startswith("relearning") and len(alike) == len(reports):
            shares = {
                model: tuple(float(share) for share in np.mean([c.shares[model] for c in alike], 0))
                for model in first.shares
                if all(model in c.shares for c in alike)
            }
            found.append(Curve(f"{row}: {name}", first.budgets, shares))
    return found


def main() -> None:
    """Attack the rows, or collect what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/world.toml"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    lineup = read_comparison(given.recipe)
    content: dict[str, Any] = conditions(COMMAND) | {
        "average_gain": AVERAGE_GAIN,
        "bars_of_vkd": BARS,
        "not_run": [],
        "rows": {},
    }
    drawn: list[Curve] = []
    for row in given.rows:
        cells = lineup.cells(row)
        if not given.collect:
            for cell in cells:
                attack(lineup, cell)
                print(row, cell.recipe.subject, flush=True)
        folders = [folder_of(lineup, cell) for cell in cells]
        if not all((folder / "report.json").exists() for folder in folders):
            content["not_run"].append(row)
            continue
        reports = [load(folder) for folder in folders]
        own = relearned(row, reports)
        drawn += own
        content["rows"][row] = {
            "relearned": {
                curve.name: {"budgets": curve.budgets, "shares": dict(curve.shares)}
                for curve in own
            },
            "verdicts": [report.verdict.rung for report in reports],
            "attacks": {
                name: pooled(folders, reports, name) for name in reports[0].models["erased"].attacks
            },
        }
    write(RESULT, content)
    if drawn:
        RESULT.with_suffix(".svg").write_text(recovered_by_budget(drawn), encoding="utf-8")
    RESULT.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def markdown(content: Mapping[str, Any]) -> str:
    """The table for readers."""
    rows = content["rows"]
    out = [
        "# What attacks bring back",
        "",
        f"Made by `{content['command']}`; raw figures in `robustness.json`. Built-in world, draws "
        "A, B and C with seeds 0, 1 and 2, 5 photos a person. Points of open questions about other "
        "photos of the forgotten people that any try of an attack brings back, above the same "
        "attack on the model that never knew, with the 95 % interval (bootstrap by person). In "
        "brackets: no power in any draw, since the model before breaks under the attack too or a "
        "control that merely hides is not brought back by 20 points.",
        "",
    ]
    if content["not_run"]:
        out += [f"Not run yet: {', '.join(content['not_run'])}.", ""]
    names = list(dict.fromkeys(name for found in rows.values() for name in found["attacks"]))
    out += [
        "| attack | group | " + " | ".join(rows) + " |",
        "|" + "---|" * (2 + len(rows)),
    ]
    for name in names:
        cells = [found["attacks"].get(name, {}) for found in rows.values()]
        group = next((cell["group"] for cell in cells if "group" in cell), "-")
        out.append(f"| {name} | {group} | " + " | ".join(map(_written, cells)) + " |")
    out += ["", f"{content['average_gain']}.", ""]
    out += [
        f"- {row}: {', '.join(f'{100 * gain:+.1f}' for gain in found['attacks'][name][key])} points"
        for row, found in rows.items()
        for name, key in (("relearning", "average_gain"),)
        if key in found["attacks"].get(name, {})
    ]
    if any(found.get("relearned") for found in rows.values()):
        out += ["", f"![What relearning brings back at each budget]({RESULT.stem}.svg)"]
    verdicts = [f"- {row}: {', '.join(found['verdicts'])}" for row, found in rows.items()]
    return "\n".join([*out, "", "Verdicts of the three draws:", "", *verdicts, ""])


def _written(cell: Mapping[str, Any]) -> str:
    if "above_gold" not in cell:
        return "-"
    low, high = (100 * end for end in cell["above_gold"]["ci"])
    text = f"{100 * cell['above_gold']['value']:+.1f} [{low:+.0f}, {high:+.0f}]"
    return text if any(cell["power"]) else f"({text})"


if __name__ == "__main__":
    main()
