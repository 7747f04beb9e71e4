"""Twenty seeded trials of every method's settings on the development people of the world.

    python benchmarks/tuning.py [--jobs 2] [--only ga npo] [--collect]

Each method is tuned by `unsee tune`, in a folder of its own under runs/tune; a method that is done
is not run again, and one that was interrupted goes on. The recipe of the best trial goes to
recipes/world-METHOD.toml (VKD's to world-vkd-tuned.toml), which `recipes/world.toml` compares on
people nobody tried anything on; every trial goes to docs/results/tuning.json. With `--collect`
nothing is run, and what is done is written down. GradDiff has a script of its own.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cells import write

from unsee.artifacts import versions
from unsee.tune import TUNING, Tuned, read_tuned

TRIALS = 20
METHODS = (
    "vkd",
    "ga",
    "kl_min",
    "npo",
    "po",
    "rmu",
    "undial",
    "icu",
    "kuda",
    "mmunlearner",
    "sineproject",
    "manu",
    "kvw",
)
# VKD's defaults have a recipe too.
RECIPES = {"vkd": "world-vkd-tuned"}
FOLDER = Path("runs/tune")
RESULT = Path("docs/results/tuning.json")


def command(method: str) -> str:
    """What tunes a method, as a user would."""
    return f"unsee tune {method} --trials {TRIALS} --out {FOLDER / method}"


def run(method: str) -> None:
    """Tune one method on one thread."""
    unsee = Path(sys.executable).with_name("unsee")
    words = [str(unsee), *command(method).split()[1:], "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"{command(method)}: exit code {told.returncode}\n{told.stderr[-2000:]}")
    print(told.stdout, flush=True)


def row(method: str, tuned: Tuned) -> dict[str, Any]:
    """All trials of a method, the defaults first."""
    return {
        "command": command(method),
        "job": dict(tuned.job),
        "best": tuned.knee.number,
        "settings": tuned.settings,
        "without_figures": sum(trial.objectives is None for trial in tuned.trials),
        "trials": [
            {
                "settings": dict(trial.settings),
                "without": trial.without,
                "seconds": round(trial.seconds, 1),
            }
            | {key: trial.summary.get(key) for key in ("forget_gap", "keep", "score")}
            for trial in tuned.trials
        ],
    }


def page(rows: dict[str, dict[str, Any]], missing: list[str]) -> str:
    """The best trial of each method, best first."""
    lines = [
        "# Settings of every method, chosen on development people",
        "",
        f"`python benchmarks/tuning.py`: {TRIALS} seeded trials a method (`unsee tune METHOD`),",
        "the first of them the method's own defaults, on six people of the built-in world of LLaVA",
        "whom no report is about, all forgotten at once. Lower is better in forget gap, higher in",
        "keep; the score is the harmonic mean of keep and 1 - gap. These are the best of twenty on",
        "the people they were chosen on, no measure of the methods: `unsee compare",
        "recipes/world.toml` asks about others. All trials: [tuning.json](tuning.json).",
        "",
        "| method | defaults' score | best score | forget gap | keep | trial "
        "| no figures | settings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ranked = sorted(rows.items(), key=lambda item: -item[1]["trials"][item[1]["best"]]["score"])
    for method, found in ranked:
        best, own = found["trials"][found["best"]], found["trials"][0]
        settings = " ".join(f"{key}={value}" for key, value in best["settings"].items())
        first = "-" if own["score"] is None else f"{own['score']:.3f}"
        lines.append(
            f"| {method} | {first} | {best['score']:.3f} | {best['forget_gap']:.3f} "
            f"| {best['keep']:.3f} | {found['best']} of {len(found['trials'])} "
            f"| {found['without_figures']} | `{settings}` |"
        )
    if missing:
        lines += ["", f"Not tuned yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Tune what is not tuned yet, and write recipes and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="Methods at a time.")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--collect", action="store_true", help="Write down what is done.")
    given = parser.parse_args()
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(run, () if given.collect else given.only))
    rows = {}
    for method in METHODS:
        if (FOLDER / method / TUNING).exists():
            tuned = read_tuned(FOLDER / method)
            if len(tuned.trials) == TRIALS:
                rows[method] = row(method, tuned)
                text = (FOLDER / method / "recipe.toml").read_text(encoding="utf-8")
                text = text.replace("\n\n[method]", '\nsubject = "world:A"\n\n[method]')
                Path(f"recipes/{RECIPES.get(method, f'world-{method}')}.toml").write_text(
                    text, encoding="utf-8"
                )
    missing = [method for method in METHODS if method not in rows]
    content = {
        "command": "python benchmarks/tuning.py",
        "versions": versions(),
        "not_tuned": missing,
        "methods": rows,
    }
    write(RESULT, content)
    RESULT.with_suffix(".md").write_text(page(rows, missing), encoding="utf-8")


if __name__ == "__main__":
    main()
