"""Which parts of VKD matter: one setting at a time, on development subjects only.

    python benchmarks/vkd_ablation.py [--shard 0/2] [--collect]

Every run forgets the six development people from five photos each and is scored on the development
half of views, wordings and general items. A quarter of the retain people is kept from the method;
with the development celebrities they are the `bystander` set. Cells are kept in `runs/ablation` and
shared between shards; `--collect` writes `docs/results/vkd-ablation.{json,md}` from them.
"""

import argparse
from pathlib import Path
from typing import Any

from cells import Cell, Table, flat, provenance, write

from unsee.methods.vkd import VKD
from unsee.metrics.summary import forget_sets
from unsee.world import materialise

RESULT = Path("docs/results/vkd-ablation.json")
DRAW = "dev"
# What the rows vary: the settings at hand when they were run, spelled out because the defaults were
# chosen from them; the last rows are the defaults.
CENTRE: dict[str, Any] = {
    "target": "neutral",
    "feature": "projector",
    "distance": "mse",
    "output": "unlikelihood",
    "output_every": 1,
    "output_weight": 1.0,
    "distill_weight": 10.0,
    "blocks": -1,
    "mask": "none",
    "steps": 150,
    "lr": 5e-4,
    "forget_batch": 16,
    "visible_batch": 4,
    "retain_batch": 12,
    "general_batch": 16,
    "variants": 64,
}

VARIATIONS: dict[str, list[dict[str, Any]]] = {
    "centre": [{}],
    "forget target": [
        {"target": "away", "distance": "cosine"},
        {"target": "stranger"},
        {"target": "pruned"},
        {"forget_weight": 0.0},
        {"forget_weight": 4.0},
    ],
    "supervised feature": [
        {"feature": "vision[1]"},
        {"feature": "vision[3]"},
        {"feature": "language[0]"},
        {"feature": "language[2]"},
    ],
    "distance": [{"distance": "cosine"}, {"distance": "cka"}],
    "output term": [
        {"output": "none"},
        {"output": "ascent"},
        {"output": "npo"},
        {"output_weight": 2.0},
    ],
    "output every": [{"output_every": n} for n in (2, 3, 0)],
    "kept": [
        {"distill_weight": 0.0},
        {"retain_weight": 0.0},
        {"visible_batch": 0},
        {"distill_weight": 0.0, "retain_weight": 0.0},
    ],
    "saliency mask": [
        {"mask": "gradient"},
        {"mask": "step"},
        {"mask": "gradient", "mask_threshold": 0.5},
        {"mask": "gradient", "mask_threshold": 2.0},
    ],
    "trained": [{"blocks": 0}, {"blocks": 1}, {"blocks": 2}, {"projector": False}],
    "photo variants": [{"variants": 1}, {"variants": 4}],
    "teacher quality": [
        {"teacher_noise": 0.05},
        {"teacher_noise": 0.2},
        {"teacher_bits": 8},
    ],
    "steps": [{"steps": 50}, {"steps": 100}, {"steps": 300}],
}


def rows(early: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Axis and changed settings of every run, in the order of the table."""
    listed = [(axis, settings) for axis, many in VARIATIONS.items() for settings in many]
    if early is not None:
        at = [axis for axis, _ in listed].index("steps")
        listed.insert(at, ("teacher quality", {"teacher": early}))
    # What each row says is what it changes; a row that changes nothing would be the centre again.
    idle = [s for _, s in listed if s and all((CENTRE | s)[k] == CENTRE.get(k) for k in s)]
    if idle:
        raise SystemExit(f"rows that change nothing: {idle}")
    defaults = VKD().model_dump()
    chosen = {k: v for k, v in defaults.items() if k in CENTRE and v != CENTRE[k]}
    return [*listed, ("defaults", chosen)]


def cell(settings: dict[str, Any], seed: int = 0) -> Cell:
    """One run."""
    return Cell("vkd", CENTRE | settings, DRAW, seed=seed, part="dev")


def line(table: Table, axis: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    pool = table.pooled([cell(settings)])
    scores = pool.scores()
    run = table.run(cell(settings))
    return {
        "axis": axis,
        "settings": {k: Path(v).name if k == "teacher" else v for k, v in settings.items()},
        "summary": pool.summary(scores),
        "sets": flat(scores["erased"]),
        "seconds": run["seconds"],
        "trained_parameters": run["trained_parameters"],
    }


def markdown(lines: list[dict[str, Any]], references: dict[str, Any], command: str) -> str:
    """The table for readers."""
    head = (
        "| axis | setting | score | gap | keep | forget seen | unseen | unknown | wrong name "
        "| retain unseen | bystander | visible | general | refusal | s |"
    )
    out = [
        "# VKD, one setting at a time",
        "",
        "Six development people, five photos each, one seed. Nothing here is reported elsewhere: "
        "these rows chose the defaults. `bystander` is a quarter of the retain people, kept from "
        "the method, and the two development celebrities. Accuracy on open questions in per cent; "
        "unknown and wrong name on `forget_unseen`; seconds of training on a shared two-core "
        "machine, one thread.",
        "",
        f"Made by `{command}`.",
        "",
        head,
        "|" + "---|" * head.count(" | ") + "---|",
    ]

    def cells(name: str, setting: str, summary: Any, sets: Any, seconds: Any) -> str:
        def pct(set_name: str, metric: str = "accuracy") -> str:
            cell = sets.get(set_name, {}).get(metric, {})
            return f"{100 * cell['value']:.1f}" if "value" in cell else "-"

        def number(key: str) -> str:
            value = summary.get(key)
            return f"{value:.3f}" if isinstance(value, float) else "-"

        values = [
            name,
            f"`{setting}`" if setting else "",
            *(number(key) for key in ("score", "forget_gap", "keep")),
            pct("forget_seen"),
            pct("forget_unseen"),
            pct("forget_unseen", "unknown_rate"),
            pct("forget_unseen", "wrong_name_rate"),
            *(
                pct(s)
                for s in (
                    "retain_unseen",
                    "bystander",
                    "forget_visible",
                    "general",
                    "refusal",
                )
            ),
            f"{seconds:.0f}" if seconds else "-",
        ]
        return "| " + " | ".join(values) + " |"

    out += [cells(name, "", {}, references[name], None) for name in ("base", "gold")]
    for row in lines:
        setting = ", ".join(f"{k}={v}" for k, v in row["settings"].items()) or "as it is"
        out.append(cells(row["axis"], setting, row["summary"], row["sets"], row["seconds"]))
    return "\n".join([*out, ""])


def main() -> None:
    """Run the cells of a shard, or collect them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--early-teacher", help="folder of a base whose training stopped early")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    table = Table(materialise(), given.folder)
    listed = rows(given.early_teacher)
    if not given.collect:
        mine, shards = map(int, given.shard.split("/"))
        for number, (_, settings) in enumerate(listed):
            if number % shards == mine:
                table.run(cell(settings))
                print(number, settings, flush=True)
        return
    lines = [line(table, axis, settings) for axis, settings in listed]
    pool = table.pooled([cell({})])
    scores = pool.scores()
    references = {name: flat(scores[name]) for name in ("base", "gold")}
    command = "python benchmarks/vkd_ablation.py && python benchmarks/vkd_ablation.py --collect"
    content = provenance(command, table) | {
        "centre": cell({}).resolved().model_dump(mode="json"),
        "defaults": VKD().model_dump(mode="json"),
        "forget_sets": forget_sets("visual"),
        "references": references,
        "rows": lines,
        "not_run": {
            "target=base": "the world's models are trained from scratch; there is no model before"
        },
    }
    write(RESULT, content)
    RESULT.with_suffix(".md").write_text(markdown(lines, references, command), encoding="utf-8")


if __name__ == "__main__":
    main()
