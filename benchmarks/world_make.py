"""What a world costs to build: every stage of `unsee world make`, by the clock.

    python benchmarks/world_make.py [--family qwen2_5_vl] [--threads 2]

Builds the whole world into a folder that is thrown away, asks its models what they know, and writes
`docs/results/world-make.{json,md}`, and of another family than LLaVA
`docs/results/world-make-<family>.{json,md}`. Run it on an idle machine.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import conditions, tail, with_family, write

from unsee.cli.session import progress
from unsee.world import FAMILIES, make_world, world_card

RESULT = "docs/results/world-make{tail}.json"


def measured(family: str) -> dict[str, Any]:
    """Seconds of the whole build and of its stages, and what the models then know."""
    ended: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, progress(quiet=False) as report:
        began = time.monotonic()

        def step(stage: str, done: int, steps: int) -> None:
            ended.setdefault(stage, []).append(time.monotonic() - began)
            if report is not None:
                report(stage, done, steps)

        world = make_world(Path(folder) / "world", family=family, progress=step)
        whole = time.monotonic() - began
        return {"whole_s": whole, "stages": _stages(ended)} | world_card(world, report)


def _stages(ended: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """When each stage's first and last steps ended, and seconds a step."""
    return {
        stage: {
            "steps": len(times),
            "first_step_s": times[0],
            "last_step_s": times[-1],
            "median_step_s": statistics.median(
                after - before for before, after in itertools.pairwise(times)
            ),
        }
        for stage, times in ended.items()
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The same for readers."""
    missed = [name for name, met in content["bars"].items() if not met]
    out = [
        f"# Building the world of {content['family']}",
        "",
        f"Made by `{content['command']}` on {content['device']}, {content['threads']} threads: "
        f"{content['whole_s'] / 60:.1f} minutes in all. With two threads base and gold are trained "
        "side by side. Of the world card's bars these models miss: "
        f"{', '.join(missed) or 'none'}.",
        "",
        "| stage | steps | first step after, min | last step after, min | s a step (median) |",
        "|" + "---|" * 5,
    ]
    for stage, row in content["stages"].items():
        first, last = row["first_step_s"] / 60, row["last_step_s"] / 60
        step = row["median_step_s"]
        out.append(f"| {stage} | {row['steps']} | {first:.1f} | {last:.1f} | {step:.3f} |")
    return "\n".join([*out, ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="llava")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    content = conditions(with_family("python benchmarks/world_make.py", given.family))
    content |= {"family": given.family, "threads": given.threads} | measured(given.family)
    result = Path(RESULT.format(tail=tail(given.family)))
    write(result, content)
    result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
