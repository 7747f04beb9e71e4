"""MLLMEraser on the built-in world, published and calibrated gate side by side, with its bars.

    python benchmarks/world_mllmeraser.py [--only calibrated published] [--settings ...]
    python benchmarks/world_mllmeraser.py --collect
    python benchmarks/world_mllmeraser.py --dev gate=published strength=0.3
    python benchmarks/world_mllmeraser.py --family qwen2_5_vl ...

Five photos a person; draws A, B and C with three seeds each, pooled, and all twelve people at once
with the same seeds, scope visual; the three draws with scope both, calibrated gate. There the
method is given questions by name in the wordings it is given on photos; those that are audited are
worded otherwise. Cells are kept in `runs/world-mllmeraser`; when all are there, or with
`--collect`, which names those that are not, `docs/results/mllmeraser.{json,md}` are written.
`--dev` tries settings on the development draw alone, where every choice is made, and prints the
same bars. With another family than LLaVA the names of folder and result end in it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import (
    Cell,
    Pool,
    Table,
    bars_table,
    flat,
    provenance,
    sets_table,
    tail,
    with_family,
    write,
)

from unsee.erasers.protocol import Scope
from unsee.metrics.answers import degenerate_rate
from unsee.metrics.summary import forget_sets
from unsee.settings import overrides
from unsee.world import FAMILIES, materialise

GATES: dict[str, dict[str, Any]] = {
    "calibrated": {},
    # One try on development people; not tuned.
    "published": {"gate": "published", "strength": 0.5},
}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Setting:
    """Who is forgotten, in which scope, and by which gates."""

    draws: tuple[str, ...]
    scope: Scope = "visual"
    gates: tuple[str, ...] = tuple(GATES)


DRAWS = ("A", "B", "C")
SETTINGS = {
    "three draws of four": Setting(DRAWS),
    "all twelve at once": Setting(("ABC",)),
    # The published gate is fitted on photos alone.
    "three draws of four, scope both": Setting(DRAWS, "both", ("calibrated",)),
}
KEEP = {
    "retain_unseen": ("retain_unseen",),
    "celebrity + bystander": ("celebrity", "bystander"),
    "general": ("general",),
    "forget_visible": ("forget_visible",),
    "refusal": ("refusal",),
}


def cells(gate: str, setting: Setting) -> list[Cell]:
    """The runs of one gate."""
    return [
        Cell("mllmeraser", GATES[gate], draw, seed, scope=setting.scope)
        for draw in setting.draws
        for seed in SEEDS
    ]


def bars(pool: Pool, runs: list[dict[str, Any]], scope: Scope) -> dict[str, Any]:
    """The bars of the issue that a run on the world can tell, each with its figure."""
    found: dict[str, Any] = {}

    def at_most(name: str, value: float, bound: float) -> None:
        found[name] = {"value": value, "at_most": bound, "met": value <= bound + 1e-9}

    for name in forget_sets(scope):
        gold = pool.accuracy("gold", (name,))
        at_most(f"{name} accuracy", pool.accuracy("erased", (name,)), gold + 0.05)
        texts = list(zip(pool.records[name], pool.answers["erased"][name], strict=True))
        degenerate = sum(degenerate_rate(record, text) for record, text in texts) / len(texts)
        at_most(f"{name} degenerate", degenerate, 0.02)
    keep = KEEP if scope == "visual" else {**KEEP, "retain_text": ("retain_text",)}
    for name, wanted in keep.items():
        sets = tuple(each for each in wanted if each in pool.records)
        drop = pool.accuracy("base", sets) - pool.accuracy("erased", sets)
        at_most(f"{name} below base", drop, 0.01)
    if scope == "visual":
        same, total = (sum(run["text_logits_identical"][at] for run in runs) for at in (0, 1))
        at_most("text-only batches not bit-identical", 1 - same / total, 0.0)
    at_most("runs that did not restore the base", sum(not run["restored"] for run in runs), 0)
    return found


def block(table: Table, wanted: list[Cell]) -> dict[str, Any]:
    """What the result file says of one gate."""
    pool = table.pooled(wanted)
    runs = [table.run(cell) for cell in wanted]
    scope = wanted[0].scope
    scores = pool.scores()
    return {
        "settings": runs[0]["cell"]["settings"],
        "summary": pool.summary(scores, scope),
        "sets": flat(scores["erased"]),
        "references": {model: flat(scores[model]) for model in ("base", "gold")},
        "bars": bars(pool, runs, scope),
    }


def figures(found: dict[str, Any]) -> str:
    """The summary of one gate in a line."""
    summary = found["summary"]
    return ", ".join(
        f"{name} {summary[name]:.3f}" if isinstance(summary[name], float) else f"{name} not scored"
        for name in ("score", "forget_gap", "over_forgetting", "keep")
    )


def main() -> None:
    """Run the cells, or collect them, or try settings on the development draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="llava")
    parser.add_argument("--only", nargs="+", choices=tuple(GATES), default=tuple(GATES))
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--folder", type=Path, help="Of cells; runs/world-mllmeraser if not given.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--dev", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--scope", choices=("visual", "both"), default="visual", help="of --dev")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    family = given.family
    folder = given.folder or Path(f"runs/world-mllmeraser{tail(family)}")
    table = Table(materialise(family), folder)
    if given.dev is not None:
        settings = overrides(given.dev)
        wanted = [
            Cell("mllmeraser", settings, "dev", seed, "dev", given.scope) for seed in given.seeds
        ]
        found = block(table, wanted)
        lines = [f"dev {settings}", *bars_table(found["bars"]), figures(found)]
        print("\n".join(lines), flush=True)
        return
    if not given.collect:
        for title in given.settings:
            setting = SETTINGS[title]
            for gate in [each for each in setting.gates if each in given.only]:
                for cell in cells(gate, setting):
                    found = table.run(cell)
                    print(cell.key, round(found["wall_s"]), flush=True)
        if len(given.only) < len(GATES) or len(given.settings) < len(SETTINGS):
            return
    collect(family, table)


def collect(family: str, table: Table) -> None:
    """Write the result file and its page, and say in both what was not run."""
    result = Path(f"docs/results/mllmeraser{tail(family)}.json")
    command = with_family("python benchmarks/world_mllmeraser.py", family)
    content: dict[str, Any] = provenance(command, table) | {
        "family": family,
        "seeds": SEEDS,
        "not_run": [],
        "settings": {},
    }
    page = [
        f"# MLLMEraser on the built-in world{'' if family == 'llava' else f' of {family}'}",
        "",
        f"Made by `{content['command']}`; raw figures in `{result.name}`. "
        f"{content['photos_per_person']} photos a person, seeds {list(SEEDS)}, scope visual "
        "where none is named, reported half of views, wordings and general items. Open questions, "
        "accuracy in per cent with the 95 % interval (bootstrap by person), n questions, and "
        "chance. The calibrated gate has its defaults, which were chosen on development people "
        "of LLaVA's world; "
        "the published one has "
        f"strength {GATES['published']['strength']} after one try on them, and is not tuned.",
    ]
    for title, setting in SETTINGS.items():
        gates = content["settings"][title] = {}
        for gate in setting.gates:
            wanted = cells(gate, setting)
            if all(table.path(cell).exists() for cell in wanted):
                gates[gate] = block(table, wanted)
            else:
                content["not_run"].append(f"{gate}, {title}")
        if not gates:
            continue
        tables = next(iter(gates.values()))["references"] | {n: g["sets"] for n, g in gates.items()}
        page += ["", f"## {title.capitalize()}", "", *sets_table(tables)]
        for gate, found in gates.items():
            page += ["", f"Gate `{gate}`: {figures(found)}.", "", *bars_table(found["bars"])]
    if content["not_run"]:
        page += ["", f"Not run yet: {'; '.join(content['not_run'])}."]
    write(result, content)
    result.with_suffix(".md").write_text("\n".join([*page, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
