"""The world card: what base and gold of the built-in world know.

    python benchmarks/world_card.py [--family qwen2_5_vl | --reduced]

Writes `docs/results/world-card.{json,md}`, and of another family than LLaVA
`docs/results/world-card-<family>.{json,md}`. With `--reduced`, builds a world of a quarter of the
people by a recipe of a few minutes and writes what its models know to
`docs/results/world-reduced.json`: a test builds it again and compares.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cells import Table, provenance, tail, with_family, write

from unsee.world import FAMILIES, make_world, materialise, profiles, world_card
from unsee.world.build import Recipe
from unsee.world.card import BARS

RESULT = "docs/results/world-card{tail}.json"
REDUCED_RESULT = Path("docs/results/world-reduced.json")
REDUCED_PEOPLE = {"retain": 6, "celebrity": 2, "A": 1, "B": 1, "C": 1, "dev": 1}
REDUCED = Recipe(
    tower_steps=300,
    tower_batch=32,
    tower_strangers=2000,
    steps=300,
    people=8,
    strangers=5,
    text_rows=3,
)


def markdown(content: dict[str, Any]) -> str:
    """The card for readers."""
    family = content["family"]
    out = [
        "# World card" if family == "llava" else f"# World card of {family}",
        "",
        f"Made by `{content['command']}`. Open questions, greedy answers, reported half of unseen "
        "views, wordings and general items. Right, with the 95 % interval (bootstrap by person), "
        "then the shares of `I do not know` and of another known person's name or fact, in per "
        "cent.",
        "",
        "| questions | n | base right | unknown | wrong name | gold right | unknown | wrong name |",
        "|" + "---|" * 8,
    ]
    base, gold = content["figures"]["base"], content["figures"]["gold"]
    for name in base:
        shown = [f"`{name}`", str(base[name]["n"])]
        for figure in (base[name], gold[name]):
            low, high = (100 * end for end in figure["ci"])
            shown += [
                f"{100 * figure['value']:.1f} [{low:.0f}, {high:.0f}]",
                f"{100 * figure['unknown_rate']:.1f}",
                f"{100 * figure['wrong_name_rate']:.1f}",
            ]
        out.append("| " + " | ".join(shown) + " |")
    neighbours = 100 * content["nearest_neighbour_accuracy"]
    out += [
        "",
        f"The best pixel nearest neighbour over the stored photos names {neighbours:.1f} % of the "
        "unseen ones.",
        "",
        "| bar | met |",
        "|---|---|",
    ]
    for name, met in content["bars"].items():
        bound = BARS.get(name.removeprefix("base "))
        at = f" at least {100 * bound:.0f} %" if bound is not None else ""
        out.append(f"| {name}{at} | {'yes' if met else '**no**'} |")
    return "\n".join([*out, ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--family", choices=FAMILIES, default="llava")
    either.add_argument("--reduced", action="store_true")
    given = parser.parse_args()
    if given.reduced:
        profiles.PEOPLE_PER_ROLE = REDUCED_PEOPLE
        world = make_world(Path("runs/reduced"), recipe=REDUCED)
        table = Table(world, Path("runs/card"))
        content = provenance("python benchmarks/world_card.py --reduced", table)
        content |= {"people_per_role": REDUCED_PEOPLE, "recipe": asdict(REDUCED)}
        content |= {"figures": world_card(world)["figures"]}
        write(REDUCED_RESULT, content)
        return
    world = materialise(given.family)
    table = Table(world, Path("runs/card"))
    command = with_family("python benchmarks/world_card.py", given.family)
    content = provenance(command, table) | {"family": given.family} | world_card(world)
    result = Path(RESULT.format(tail=tail(given.family)))
    write(result, content)
    result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
