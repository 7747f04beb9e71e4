"""Which parts of VKD matter: one setting at a time, on development subjects only.

    python benchmarks/vkd_ablation.py [--shard 0/2] [--collect]

Every run forgets the six development people from five photos each and is scored on the development
half of views, wordings and general items. A quarter of the retain people is kept from the method;
with the development celebrities they are the `bystander` set. Cells are kept in `runs/ablation` and
shared between shards; a run that is no shard, or `--collect` after those that are, writes
`docs/results/vkd-ablation.{json,md}` from them. `--early-teacher` adds the row of a teacher whose
training stopped early: a folder made with `unsee.world.build.save_model` from a checkpoint that
`unsee world make` keeps in `.build` while it runs.
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
# chosen from them; the last row is the defaults.
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
    "steps": 100,
    "lr": 5e-4,
    "average": 0.0,
    "forget_batch": 16,
    "visible_batch": 4,
    "retain_batch": 12,
    "general_batch": 16,
    "variants": 64,
}

# One seed more or less decides between rows that differ by little: these have three.
SEEDS = (0, 1, 2)
AVERAGED: dict[str, Any] = {"average": 0.6, "lr": 1e-3}

VARIATIONS: dict[str, list[dict[str, Any]]] = {
    "centre": [{}],
    "forget target": [
        {"target": "away", "distance": "cosine"},
        {"target": "stranger"},
        {"target": "pruned"},
        {"forget_weight": 0.0},
    ],
    "supervised feature": [
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
    ],
    "trained": [{"blocks": 0}, {"blocks": 1}, {"blocks": 2}, {"projector": False}],
    "photo variants": [{"variants": 1}],
    "teacher quality": [
        {"teacher_noise": 0.2},
        {"teacher_bits": 8},
    ],
    "steps": [{"steps": 50}],
}


def rows(early: str | None) -> list[tuple[str, dict[str, Any], int]]:
    """Axis, changed settings and seed of every run, in the order of the table."""
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
    # What None comes to for six people.
    chosen["steps"] = 150
    repeats = [("another seed", {}, seed) for seed in (1, 2)]
    once = [(axis, settings, 0) for axis, settings in listed]
    averaged = [("weights averaged", AVERAGED, seed) for seed in SEEDS]
    final = [("defaults", chosen, seed) for seed in SEEDS]
    return [once[0], *repeats, *once[1:], *averaged, *final]


def cell(settings: dict[str, Any], seed: int) -> Cell:
    """One run."""
    return Cell("vkd", CENTRE | settings, DRAW, seed=seed, part="dev")


def line(table: Table, axis: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """One row of the table."""
    pool = table.pooled([cell(settings, seed)])
    scores = pool.scores()
    run = table.run(cell(settings, seed))
    return {
        "axis": axis,
        "seed": seed,
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
        "Six development people, five photos each; nothing here is reported elsewhere. "
        "Every row changes what it names of the centre: "
        + _settings(CENTRE)
        + ". The last rows are "
        "what was chosen from these and from longer runs, the defaults. `bystander` is a quarter "
        "of the retain people, kept from the method, and the two development celebrities. Accuracy "
        "on open questions in per cent with the 95 % interval (bootstrap by person); unknown and "
        "wrong name on `forget_unseen`; seconds of training on a shared two-core machine, one "
        "thread. One run a row, with seed 0 where none is named; how much the same settings differ "
        "from seed to seed is in the rows that name one.",
        "",
        "Questions and chance: "
        + ", ".join(
            f"`{name}` {cells['accuracy']['n']} at {100 * cells['accuracy']['chance']:.0f} %"
            for name, cells in references["base"].items()
            if cells["accuracy"].get("chance") is not None
        )
        + ".",
        "",
        "```sh",
        command,
        "```",
        "",
        head,
        "|" + "---|" * head.count(" | ") + "---|",
    ]

    def cells(name: str, setting: str, summary: Any, sets: Any, seconds: Any) -> str:
        def pct(set_name: str, metric: str = "accuracy") -> str:
            cell = sets.get(set_name, {}).get(metric, {})
            if "value" not in cell:
                return "-"
            low, high = (100 * end for end in cell["ci"])
            return f"{100 * cell['value']:.1f} [{low:.0f}, {high:.0f}]"

        def number(key: str) -> str:
            value = summary.get(key)
            return f"{value:.3f}" if isinstance(value, float) else "-"

        values = [
            name,
            setting,
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
        several = row["axis"] in ("centre", "another seed", "weights averaged", "defaults")
        seed = f"seed {row['seed']}" if several else ""
        setting = ", ".join(part for part in (_settings(row["settings"]), seed) if part)
        out.append(cells(row["axis"], setting, row["summary"], row["sets"], row["seconds"]))
    return "\n".join([*out, ""])


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"`{k}={v}`" for k, v in settings.items())


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
        for number, (_, settings, seed) in enumerate(listed):
            if number % shards == mine:
                table.run(cell(settings, seed))
                print(number, settings, flush=True)
        if shards > 1:
            return
    lines = [line(table, *row) for row in listed]
    pool = table.pooled([cell({}, 0)])
    scores = pool.scores()
    references = {name: flat(scores[name]) for name in ("base", "gold")}
    script = "python benchmarks/vkd_ablation.py"
    if given.early_teacher is not None:
        script += f" --early-teacher {Path(given.early_teacher).name}"
    command = script
    content = provenance(command, table) | {
        "centre": cell({}, 0).resolved().model_dump(mode="json"),
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
