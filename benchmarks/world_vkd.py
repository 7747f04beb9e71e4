"""VKD against GradDiff, full and LoRA, on the built-in world, with the bars of VKD.

    python benchmarks/world_vkd.py [--only vkd grad_diff-full grad_diff-lora]
    python benchmarks/world_vkd.py --collect
    python benchmarks/world_vkd.py --family qwen2_5_vl ...

Five photos a person; draws A, B and C with three seeds each, pooled; and all twelve people at once
with the same seeds. Settings come from `recipes/world-vkd.toml` (the defaults) and the tuned
`recipes/world-grad_diff-{full,lora}.toml`. Cells are kept in `runs/world-vkd`; when all are there,
or with `--collect`, which names those that are not, `docs/results/world-vkd.{json,md}` are written.
With another family than LLaVA all these names end in it: `recipes/world-vkd-qwen2_5_vl.toml`,
`runs/world-vkd-qwen2_5_vl`, `docs/results/world-vkd-qwen2_5_vl.json`.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from cells import (
    Cell,
    Pool,
    Table,
    bars_table,
    flat,
    paired_score,
    provenance,
    sets_table,
    tail,
    with_family,
    write,
)

from unsee.world import FAMILIES, materialise

RECIPES = ("vkd", "grad_diff-full", "grad_diff-lora")
SEEDS = (0, 1, 2)
TWELVE = (
    "GradDiff has the steps here that its rate was tuned with on six people, VKD its default of 25 "
    "a person."
)
SETTINGS = {"three draws of four": ("A", "B", "C"), "all twelve at once": ("ABC",)}


def cells(family: str, recipe: str, draws: tuple[str, ...]) -> list[Cell]:
    """The runs of one recipe."""
    path = Path(f"recipes/world-{recipe}{tail(family)}.toml")
    table = dict(tomllib.loads(path.read_text(encoding="utf-8"))["method"])
    name = table.pop("name")
    return [Cell(name, table, draw, seed) for draw in draws for seed in SEEDS]


def gold_card(family: str, table: Table) -> dict[str, Any]:
    """What gold says about all 18 candidates, from the committed world card."""
    path = Path(f"docs/results/world-card{tail(family)}.json")
    card = json.loads(path.read_text(encoding="utf-8"))
    if card["gold_fingerprint"] != table.vlm("gold").fingerprint:
        raise SystemExit(f"{path}: of another gold; run benchmarks/world_card.py first")
    return card["figures"]["gold"]["candidates_unseen"]


def bars(
    pool: Pool, scores: Any, summary: Any, gold: dict[str, float], runs: Any
) -> dict[str, Any]:
    """Every bar of VKD with the figure it is held against."""
    found: dict[str, Any] = {}

    def at_most(name: str, value: float, bound: float) -> None:
        found[name] = {"value": value, "at_most": bound, "met": value <= bound + 1e-9}

    def at_least(name: str, value: float, bound: float) -> None:
        found[name] = {"value": value, "at_least": bound, "met": value >= bound - 1e-9}

    erased = scores["erased"]
    for name in ("forget_seen", "forget_unseen"):
        at_most(f"{name} accuracy", erased[name]["accuracy"]["value"], gold["right"] + 0.05)
        at_least(f"{name} unknown rate", erased[name]["unknown_rate"]["value"], 0.70)
        wrong = erased[name]["wrong_name_rate"]["value"]
        at_most(f"{name} wrong names", wrong, gold["wrong_name"] + 0.05)
    at_most("forget_gap", summary["forget_gap"], 0.10)
    groups = {
        "retain_unseen": (("retain_unseen",), 0.02),
        "celebrity + bystander": (("celebrity", "bystander"), 0.02),
        "general": (("general",), 0.02),
        "refusal": (("refusal",), 0.02),
        "forget_visible": (("forget_visible",), 0.05),
    }
    for name, (sets, bound) in groups.items():
        sets = tuple(s for s in sets if s in pool.records)
        drop = pool.accuracy("base", sets) - pool.accuracy("erased", sets)
        at_most(f"{name} below base", drop, bound)
    same = sum(run["text_logits_identical"][0] for run in runs)
    total = sum(run["text_logits_identical"][1] for run in runs)
    at_least("text-only logits bit-identical", same / total, 1.0)
    at_most(
        "trained names in language model or head", sum(r["changed_in_language"] for r in runs), 0
    )
    return found


def main() -> None:
    """Run the cells, or collect them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="llava")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--folder", type=Path, help="Of cells; runs/world-vkd if not given.")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    family = given.family
    table = Table(materialise(family), given.folder or Path(f"runs/world-vkd{tail(family)}"))
    if not given.collect:
        for recipe in given.only:
            for title in given.settings:
                for cell in cells(family, recipe, SETTINGS[title]):
                    found = table.run(cell)
                    print(cell.key, round(found["wall_s"]), flush=True)
        if len(given.only) < len(RECIPES) or len(given.settings) < len(SETTINGS):
            return
    figures = gold_card(family, table)
    gold = {"right": figures["value"], "wrong_name": figures["wrong_name_rate"]}
    command = with_family("python benchmarks/world_vkd.py", family)
    content: dict[str, Any] = provenance(command, table) | {
        "family": family,
        "seeds": SEEDS,
        "gold_on_all_18_candidates": figures,
        "not_run": [],
        "settings": {},
    }
    for title, draws in SETTINGS.items():
        ran = [r for r in RECIPES if all(table.path(c).exists() for c in cells(family, r, draws))]
        content["not_run"] += [f"{recipe}, {title}" for recipe in RECIPES if recipe not in ran]
        if "vkd" not in ran:
            continue
        pools = {recipe: table.pooled(cells(family, recipe, draws)) for recipe in ran}
        block: dict[str, Any] = {"methods": {}, "paired": {}}
        for recipe, pool in pools.items():
            scores = pool.scores()
            summary = pool.summary(scores)
            runs = [table.run(cell) for cell in cells(family, recipe, draws)]
            block["methods"][recipe] = {
                "method": runs[0]["cell"]["method"],
                "settings": runs[0]["cell"]["settings"],
                "summary": summary,
                "sets": flat(scores["erased"]),
                "text_logits_identical": [
                    sum(r["text_logits_identical"][0] for r in runs),
                    sum(r["text_logits_identical"][1] for r in runs),
                ],
                "trained_parameters": runs[0]["trained_parameters"],
                "seconds_a_run": sum(r["seconds"] for r in runs) / len(runs),
            }
            block["references"] = {m: flat(scores[m]) for m in ("base", "gold")}
            if recipe == "vkd":
                block["bars"] = bars(pool, scores, summary, gold, runs)
            else:
                block["paired"][f"vkd - {recipe}"] = paired_score(pools["vkd"], pool)
        content["settings"][title] = block
    result = Path(f"docs/results/world-vkd{tail(family)}.json")
    write(result, content)
    result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def markdown(content: dict[str, Any]) -> str:
    """The tables for readers."""
    family, gold = content["family"], content["gold_on_all_18_candidates"]
    out = [
        f"# VKD on the built-in world{'' if family == 'llava' else f' of {family}'}",
        "",
        f"Made by `{content['command']}`; raw figures in `world-vkd{tail(family)}.json`. "
        f"{content['photos_per_person']} photos a person, seeds {list(content['seeds'])}, reported "
        "half of views, wordings and general items. Open questions, accuracy in per cent with the "
        "95 % interval (bootstrap by person), n questions, and chance.",
        "",
        f"Gold on all 18 candidates: {100 * gold['value']:.1f} % right, "
        f"{100 * gold['unknown_rate']:.1f} % unknown, {100 * gold['wrong_name_rate']:.1f} % wrong "
        f"name (n = {gold['n']}).",
    ]
    if content["not_run"]:
        out += ["", f"Not run yet: {', '.join(content['not_run'])}."]
    for title, block in content["settings"].items():
        tables = block["references"] | {n: m["sets"] for n, m in block["methods"].items()}
        out += ["", f"## {title.capitalize()}", "", *sets_table(tables), "", *_summaries(block)]
        if SETTINGS[title] == ("ABC",):
            out += ["", TWELVE]
        out += [
            "",
            *_differences(block),
            *bars_table(block["bars"]),
        ]
    return "\n".join([*out, ""])


def _summaries(block: dict[str, Any]) -> list[str]:
    out = [
        "| method | score | forget gap | over-forgetting | keep | text logits identical "
        "| trained parameters | s a run |",
        "|" + "---|" * 8,
    ]
    for name, found in block["methods"].items():
        s = found["summary"]
        values = [_number(s[k]) for k in ("score", "forget_gap", "over_forgetting", "keep")]
        same, total = found["text_logits_identical"]
        row = [
            name,
            *values,
            f"{same} of {total} batches",
            f"{found['trained_parameters']:,}",
            f"{found['seconds_a_run']:.0f}",
        ]
        out.append("| " + " | ".join(row) + " |")
    left = block["methods"]["vkd"]["summary"]["left_out"]
    if left:
        reasons = "; ".join(f"`{k}` ({v})" for k, v in left.items())
        out += ["", f"Left out of the score: {reasons}."]
    return out


def _differences(block: dict[str, Any]) -> list[str]:
    out = []
    for name, found in block["paired"].items():
        verdict = "resolved" if found["resolved"] else "not resolved"
        low, high = found["ci"]
        out.append(f"- {name}: {found['difference']:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}")
    if not out:
        return []
    title = "Paired difference of the score (people resampled, the same on both sides):"
    return [title, "", *out, ""]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "not scored"


if __name__ == "__main__":
    main()
