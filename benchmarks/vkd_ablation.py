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

VARIATIONS: dict[str, list[dict[str, Any]]] = {
    "defaults": [{}],
    "forget target": [
        {"target": "away", "distance": "cosine"},
        {"target": "stranger"},
        {"target": "neutral"},
        {"target": "pruned"},
        {"forget_weight": 0.0},
    ],
    "supervised feature": [
        {"feature": "projector"},
        {"feature": "vision[1]"},
        {"feature": "vision[3]"},
        {"feature": "language[0]"},
        {"feature": "language[2]"},
    ],
    "distance": [{"distance": "mse"}, {"distance": "cosine"}, {"distance": "cka"}],
    "output term": [
        {"output": "none"},
        {"output": "unlikelihood"},
        {"output": "ascent"},
        {"output": "npo"},
    ],
    "output every": [{"output_every": n} for n in (1, 2, 3, 0)],
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
    "trained": [{"blocks": 0}, {"blocks": 1}, {"blocks": 2}, {"blocks": -1, "projector": False}],
    "photo variants": [{"variants": 1}, {"variants": 4}, {"variants": 64}],
    "teacher quality": [
        {"teacher_noise": 0.05},
        {"teacher_noise": 0.2},
        {"teacher_bits": 8},
    ],
    "steps": [{"steps": 50}, {"steps": 100}, {"steps": 300}],
}


def rows(early: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Axis and settings of every distinct run, in the order of the table."""
    listed = [(axis, settings) for axis, many in VARIATIONS.items() for settings in many]
    if early is not None:
        listed.append(("teacher quality", {"teacher": early}))
    defaults = VKD().model_dump()
    seen, distinct = set(), []
    for axis, settings in listed:
        changed = {k: v for k, v in settings.items() if defaults[k] != v}
        mark = repr(sorted(changed.items()))
        if mark not in seen:
            seen.add(mark)
            distinct.append((axis, changed))
    return distinct


def line(table: Table, axis: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    cell = Cell("vkd", settings, DRAW, seed=0, part="dev")
    pool = table.pooled([cell])
    scores = pool.scores()
    run = table.run(cell)
    return {
        "axis": axis,
        "settings": settings,
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
        setting = ", ".join(f"{k}={v}" for k, v in row["settings"].items()) or "as they are"
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
                table.run(Cell("vkd", settings, DRAW, seed=0, part="dev"))
                print(number, settings, flush=True)
        return
    lines = [line(table, axis, settings) for axis, settings in listed]
    pool = table.pooled([Cell("vkd", {}, DRAW, seed=0, part="dev")])
    scores = pool.scores()
    references = {name: flat(scores[name]) for name in ("base", "gold")}
    command = "python benchmarks/vkd_ablation.py && python benchmarks/vkd_ablation.py --collect"
    content = provenance(command, table) | {
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
