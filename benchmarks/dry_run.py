"""What `unsee forget --dry-run` foretells beside what the run then takes.

    python benchmarks/dry_run.py [--steps N]

On the built-in world, draw A, with the recipes of VKD and of GradDiff, full and LoRA: for each, the
forecast of `unsee forget --dry-run --json` and then time and peak memory in the manifest of the run
itself, both in processes of their own. Writes `docs/results/dry-run.{json,md}`.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cells import conditions, write

RESULT = Path("docs/results/dry-run.json")
RECIPES = ("vkd", "grad_diff-full", "grad_diff-lora")
WITHIN = 0.25


def unsee(words: list[str]) -> str:
    """What the command prints."""
    program = [sys.executable, "-c", "from unsee.cli import main; main()"]
    return subprocess.run([*program, *words], stdout=subprocess.PIPE, text=True, check=True).stdout


def compared(recipe: str, more: list[str], folder: Path) -> dict[str, Any]:
    """Forecast and measurement of one recipe."""
    words = ["forget", "--recipe", f"recipes/world-{recipe}.toml", *more, "--quiet"]
    told = json.loads(unsee([*words, "--dry-run", "--json"]))["forecast"]
    unsee([*words, "--out", str(folder)])
    cost = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cost"]
    bars = {}
    for name in ("wall_s", "peak_rss_mb"):
        off = told[name] / cost[name] - 1
        bars[name] = {"value": off, "within": WITHIN, "met": abs(off) <= WITHIN}
    counts = told["trained_parameters"], cost["trained_parameters"]
    return {
        "command": "unsee " + shlex.join(words),
        "forecast": told,
        "measured": cost,
        "trained_parameters_right": counts[0] == counts[1],
        "bars": bars,
    }


def markdown(content: dict[str, Any]) -> str:
    """The table for readers."""
    out = [
        "# Forecast and measurement",
        "",
        f"`unsee forget --dry-run` on the built-in world, draw A, and the run that followed; "
        f"{content['device']}. The bar is {100 * WITHIN:.0f} % for each. Made by "
        f"`{content['command']}`.",
        "",
        "| recipe | s foretold | s taken | off | MB foretold | MB taken | off | met |",
        "|" + "---|" * 8,
    ]
    for name, row in content["recipes"].items():
        cells = [f"`{name}`"]
        for figure in ("wall_s", "peak_rss_mb"):
            cells += [
                f"{row['forecast'][figure]:,.0f}",
                f"{row['measured'][figure]:,.0f}",
                f"{100 * row['bars'][figure]['value']:+.0f} %",
            ]
        met = all(bar["met"] for bar in row["bars"].values())
        out.append("| " + " | ".join([*cells, "yes" if met else "**no**"]) + " |")
    return "\n".join([*out, ""])


def main() -> None:
    """Foretell, run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="Steps of each, instead of the recipe's.")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    more = [] if given.steps is None else ["--set", f"method.steps={given.steps}"]
    with tempfile.TemporaryDirectory() as folder:
        recipes = {name: compared(name, more, Path(folder) / name) for name in given.only}
    command = f"python benchmarks/dry_run.py {' '.join(sys.argv[1:])}".strip()
    content = {**conditions(command), "recipes": recipes}
    write(given.result, content)
    given.result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
