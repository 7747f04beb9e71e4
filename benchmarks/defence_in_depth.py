"""VKD with MLLMEraser over it, against either alone, on the built-in world.

    python benchmarks/defence_in_depth.py [--collect]

Five photos a person, scope visual, defaults; draws A, B and C, seed i on the i-th of them. The
eraser over VKD is fitted in one of two ways: on the base, before there was VKD, as a quick answer
that stays when the thorough one is there; or on the model that VKD made. Cells are kept in
`runs/defence-in-depth`; when all are there, or with `--collect`, which names those that are not,
`docs/results/defence-in-depth.{json,md}` are written.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import (
    Cell,
    Pool,
    Table,
    answered,
    bars_table,
    flat,
    kept,
    provenance,
    sets_table,
    write,
)

from unsee.data.records import Record
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.protocol import erased
from unsee.methods.vkd import VKD
from unsee.metrics.summary import forget_sets
from unsee.models.restore import restored
from unsee.train import train
from unsee.world import materialise

RESULT = Path("docs/results/defence-in-depth.json")
DRAWS = ("A", "B", "C")
ALONE = ("vkd", "eraser")
OVER = {"eraser of base over VKD": "of_base", "eraser of VKD's model over VKD": "of_vkd"}
KEEP = {
    "retain_unseen": ("retain_unseen",),
    "celebrity + bystander": ("celebrity", "bystander"),
    "general": ("general",),
    "forget_visible": ("forget_visible",),
    "refusal": ("refusal",),
}


def cells(draw: str, seed: int) -> dict[str, Cell]:
    """What is run alone."""
    return {"vkd": Cell("vkd", {}, draw, seed), "eraser": Cell("mllmeraser", {}, draw, seed)}


def path(table: Table, draw: str, seed: int) -> Path:
    """Where the runs with both are kept; every setting counts."""
    keys = "-".join(cell.key.rsplit("-", 1)[1] for cell in cells(draw, seed).values())
    return table.folder / f"both-{draw}-{seed}-{keys}-{table.vlm('base').fingerprint}.json"


def both(table: Table, draw: str, seed: int) -> dict[str, Any]:
    """Answers of VKD alone and under either eraser, from one training."""
    split, vlm = table.split(draw, "report"), table.vlm("base")

    def make() -> dict[str, Any]:
        of_base = MLLMEraser().fit(vlm, split, seed=seed)
        with restored(vlm.model):
            train(vlm, split, VKD(), seed=seed)
            found = {"vkd": answered(vlm, split)}
            of_vkd = MLLMEraser().fit(vlm, split, seed=seed)
            for name, eraser in (("of_base", of_base), ("of_vkd", of_vkd)):
                with erased(vlm, [eraser]):
                    found[name] = answered(vlm, split)
        return {"answers": found}

    return kept(path(table, draw, seed), split, make)


def pooled(table: Table, draws: Mapping[str, int]) -> Pool:
    """Answers of all models to all questions of some draws, each with its seed."""
    records: dict[str, list[Record]] = defaultdict(list)
    answers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for draw, seed in draws.items():
        found = {name: table.plain(name, draw, "report")["answers"] for name in ("base", "gold")}
        found["eraser"] = table.run(cells(draw, seed)["eraser"])["answers"]
        found |= both(table, draw, seed)["answers"]
        for name, asked in table.split(draw, "report").audit.items():
            records[name] += asked
            for model, told in found.items():
                answers[model][name] += told[name]
    return Pool(dict(records), {m: dict(a) for m, a in answers.items()}, table.known)


def bars(pool: Pool, model: str) -> dict[str, Any]:
    """Bar 7 of the issue on MLLMEraser, set by set."""
    found: dict[str, Any] = {}

    def at_most(name: str, value: float, bound: float) -> None:
        found[name] = {"value": value, "at_most": bound, "met": value <= bound + 1e-9}

    for name in forget_sets("visual"):
        better = min(pool.accuracy(alone, (name,)) for alone in ALONE)
        at_most(f"{name} accuracy, bound: the better alone", pool.accuracy(model, (name,)), better)
    for name, sets in KEEP.items():
        worse = min(pool.accuracy(alone, sets) for alone in ALONE)
        at_most(f"{name} below the worse alone", worse - pool.accuracy(model, sets), 0.01)
    return found


def main() -> None:
    """Run the cells, or collect them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/defence-in-depth"))
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    table = Table(materialise(), given.folder)
    if not given.collect:
        for seed, draw in enumerate(DRAWS):
            found = both(table, draw, seed)
            print(draw, seed, round(found["wall_s"]), flush=True)
    collect(table)


def collect(table: Table) -> None:
    """Write the result file and its page."""
    seeds = {draw: seed for seed, draw in enumerate(DRAWS)}
    draws = {draw: seed for draw, seed in seeds.items() if path(table, draw, seed).exists()}
    if not draws:
        raise SystemExit(f"{table.folder}: no run is there; run without --collect first")
    pool = pooled(table, draws)
    scores = pool.scores()
    tables = {model: flat(scores[model]) for model in ("base", "gold", *ALONE, *OVER.values())}
    judged = {title: bars(pool, model) for title, model in OVER.items()}
    content = provenance("python benchmarks/defence_in_depth.py", table) | {
        "draws": draws,
        "not_run": [draw for draw in DRAWS if draw not in draws],
        "sets": tables,
        "bars": judged,
    }
    write(RESULT, content)
    titles: Mapping[str, str] = {model: title for title, model in OVER.items()}
    shown = {titles.get(model, model): found for model, found in tables.items()}
    page = [
        "# VKD with MLLMEraser over it",
        "",
        f"Made by `{content['command']}`; raw figures in `{RESULT.name}`. Draws "
        f"{', '.join(draws)} with seeds {', '.join(map(str, draws.values()))}, "
        f"{content['photos_per_person']} photos a person, scope visual, defaults, reported half of "
        "views, wordings and general items. Open questions, accuracy in per cent with the 95 % "
        "interval (bootstrap by person), n questions, and chance.",
        "",
        *sets_table(shown),
    ]
    for title, found in judged.items():
        page += ["", f"{title[0].upper()}{title[1:]}:", "", *bars_table(found)]
    if content["not_run"]:
        page += ["", f"Not run yet: {', '.join(content['not_run'])}."]
    RESULT.with_suffix(".md").write_text("\n".join([*page, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
