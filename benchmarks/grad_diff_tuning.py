"""Twenty seeded trials for GradDiff, full and LoRA, on development subjects.

    python benchmarks/grad_diff_tuning.py full|lora

Learning rate log-uniform in 1e-6 .. 1e-3, retain weight log-uniform in 0.3 .. 3, steps in 25, 50,
100 and 150. The trial with the highest `summary.score` on the development draw is written to
`recipes/world-grad_diff-{full,lora}.toml`, every trial to `docs/results/grad_diff-tuning.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Table, provenance, write

from unsee.world import materialise

TRIALS = 20
LORA_RANK = 16
RESULT = Path("docs/results/grad_diff-tuning.json")


def trials(kind: str) -> list[dict[str, Any]]:
    """Settings of the trials, in the order they were drawn."""
    rng = np.random.default_rng(0 if kind == "full" else 1)
    drawn = []
    for _ in range(TRIALS):
        settings = {
            "lr": float(f"{10 ** rng.uniform(-6, -3):.3g}"),
            "retain_weight": float(f"{10 ** rng.uniform(np.log10(0.3), np.log10(3)):.3g}"),
            "steps": int(rng.choice([25, 50, 100, 150])),
        }
        drawn.append(settings | ({"lora_rank": LORA_RANK} if kind == "lora" else {}))
    return drawn


def main() -> None:
    """Run the trials of one kind and keep the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("full", "lora"))
    parser.add_argument("--folder", type=Path, default=Path("runs/tuning"))
    kind = parser.parse_args().kind
    table = Table(materialise(), parser.parse_args().folder)
    found = []
    for settings in trials(kind):
        cell = Cell("grad_diff", settings, "dev", seed=0, part="dev")
        pool = table.pooled([cell])
        summary = pool.summary()
        found.append(
            {"settings": settings, "summary": summary, "seconds": table.run(cell)["seconds"]}
        )
        print(json.dumps({"settings": settings, "score": summary["score"]}), flush=True)
    best = max(found, key=lambda row: row["summary"]["score"])
    content = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    content |= provenance("python benchmarks/grad_diff_tuning.py full|lora", table)
    write(RESULT, content | {kind: {"best": best["settings"], "trials": found}})
    lines = [f"{name} = {value!r}" for name, value in best["settings"].items()]
    recipe = Path(f"recipes/world-grad_diff-{kind}.toml")
    recipe.write_text(
        "# The best of 20 seeded trials on development subjects: benchmarks/grad_diff_tuning.py\n"
        'model = "world:llava"\nsubject = "world:A"\n\n[method]\nname = "grad_diff"\n'
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
