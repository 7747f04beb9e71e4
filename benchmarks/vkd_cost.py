"""What VKD costs beside GradDiff, full and LoRA, on a model of random weights.

    python benchmarks/vkd_cost.py [--geometry small|llava-1.5-7b|qwen2.5-vl-7b] [--device cuda]

A step sees 4 records to forget and 4 to keep (1 on what is visible, 1 on people to keep, 2 on
strangers), the same number whatever the method; each has one photo of 576 image tokens and 64 text
tokens. Methods have the settings of `recipes/world-*.toml`, those that are held against the quality
bars; only steps and batch sizes are changed. All train by `unsee.train.train`, AdamW, without
gradient checkpointing, each in a process of its own, one after the other. A process that imports
the same and opens nothing is the floor of memory. The first step warms up and is not counted.
`--geometry mini` shows in seconds that the script runs. Writes `docs/results/vkd-cost.{json,md}`,
with the geometry in the name but for `small`.
"""

import argparse
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from cells import conditions, write
from geometries import GEOMETRIES, IMAGE_TOKENS, TEXT_TOKENS, drawn_split, parameters, random_vlm

from unsee.cost import peak_memory
from unsee.methods import METHODS
from unsee.methods.grad_diff import GradDiff
from unsee.models.load import VLM
from unsee.settings import resolve
from unsee.train import train

RESULT = Path("docs/results/vkd-cost.json")
BATCH = {"forget_batch": 4, "visible_batch": 1, "retain_batch": 1, "general_batch": 2}
EPOCH = 150
EMPTY = "empty process"
FULL = "GradDiff, full"
# Arm -> recipe, and what is set beside it.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    FULL: ("grad_diff-full", {}),
    "GradDiff, LoRA": ("grad_diff-lora", {}),
    "VKD": ("vkd", {}),
    "VKD, output terms every 2nd step": ("vkd", {"output_every": 2}),
    "VKD, output terms every 3rd step": ("vkd", {"output_every": 3}),
    "VKD, feature-only": ("vkd", {"output_every": 0, "feature": "projector"}),
    "VKD, feature-only at the default feature": ("vkd", {"output_every": 0}),
}
BARS = {
    "VKD": {"step": 0.50, "memory": 0.50},
    "VKD, feature-only": {"step": 0.07},
}


class Part(GradDiff):
    """GradDiff on tower, projector, head and the last language layers, where all do not fit."""

    layers: int

    def trainable(self, vlm: VLM) -> list[str]:
        """What the class says."""
        parts = ["vision", "projector", f"language.layers[-{self.layers}:]", "head"]
        return vlm.layout.parameter_names(vlm.model, parts)


def method_of(arm: str, steps: int, layers: int | None) -> Any:
    """The method of an arm, with `steps` steps of this benchmark's batches."""
    recipe, beside = ARMS[arm]
    text = Path(f"recipes/world-{recipe}.toml").read_text(encoding="utf-8")
    table = dict(tomllib.loads(text)["method"])
    name = table.pop("name")
    settings = {**table, **BATCH, **beside, "steps": steps}
    if layers is not None:
        return resolve(Part, {**settings, "layers": layers})
    return resolve(METHODS.get(name), settings)


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """What one arm takes; runs in a process of its own."""
    if given.arm == EMPTY:
        return peak_memory()
    dtype = getattr(torch, given.dtype)
    geometry = GEOMETRIES[given.geometry]
    every = ARMS[given.arm][1].get("output_every", 1)
    # Whole cycles of steps with and without output terms.
    steps = -(-given.steps // max(every, 1)) * max(every, 1)
    method = method_of(given.arm, 1 + steps, given.layers)
    vlm = random_vlm(geometry, device=given.device, dtype=dtype)
    split = drawn_split(vlm, geometry)
    began: list[float] = []
    ended: list[float] = []

    def now() -> float:
        if given.device != "cpu":
            torch.cuda.synchronize()
        return time.monotonic()

    def timed(kind: Any) -> None:
        prepare = kind.prepare

        def prepared(*args: Any, **named: Any) -> Any:
            began.append(now())
            state = prepare(*args, **named)
            began.append(now())
            return state

        kind.prepare = prepared

    timed(type(method))
    result = train(vlm, split, method, progress=lambda *_: ended.append(now()))
    return {
        "prepare_s": began[1] - began[0],
        "warm_up_s": ended[0] - began[1],
        "steps_s": [b - a for a, b in pairwise(ended)],
        "trained_parameters": result.trained_parameters,
        "settings": method.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        **peak_memory(),
    }


def run_arm(arm: str, given: argparse.Namespace, layers: int | None = None) -> dict[str, Any]:
    """An arm in a fresh process; None in `steps_s` where memory did not suffice."""
    words = ["--arm", arm, "--geometry", given.geometry, "--device", given.device]
    words += ["--dtype", given.dtype, "--steps", str(given.steps)]
    words += [] if layers is None else ["--layers", str(layers)]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arm}: ended with {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{arm}: {found}", file=sys.stderr)
    return found


def largest_that_fits(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Full GradDiff, or on as many of the last language layers as memory allows."""
    found = run_arm(FULL, given)
    layers = GEOMETRIES[given.geometry].text["num_hidden_layers"]
    title = FULL
    while "out_of_memory" in found and layers > 1:
        layers = layers * 3 // 4
        title = f"GradDiff, tower, projector, head and the last {layers} language layers"
        found = run_arm(FULL, given, layers)
    return title, found


def figures(found: Mapping[str, Any], floor: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Seconds a step and an epoch, and memory above the empty process, of one arm."""
    if "out_of_memory" in found:
        return dict(found)
    step = sum(found["steps_s"]) / len(found["steps_s"])
    peak = "peak_rss_mb" if device == "cpu" else "peak_gpu_mb"
    above = found[peak] - (floor[peak] if device == "cpu" else 0)
    return {
        **found,
        "step_s": step,
        "epoch_s": found["prepare_s"] + EPOCH * step,
        "above_empty_mb": above,
    }


def compared(arms: dict[str, Any], baseline: str) -> dict[str, Any]:
    """Ratios to full GradDiff, and the bars."""
    base = arms[baseline]
    bars: dict[str, Any] = {}
    for name, arm in arms.items():
        if "step_s" not in arm or "step_s" not in base:
            continue
        arm["ratios"] = {
            "step": arm["step_s"] / base["step_s"],
            "epoch": arm["epoch_s"] / base["epoch_s"],
            "memory": arm["above_empty_mb"] / base["above_empty_mb"],
        }
        for what, bound in BARS.get(name, {}).items():
            # Preparation counts: a teacher's passes are part of the price.
            value = arm["ratios"]["epoch" if what == "step" else what]
            words = {"step": "wall time per epoch", "memory": "peak memory above an empty process"}
            bars[f"{name}: {words[what]}"] = {
                "value": value,
                "at_most": bound,
                "met": value <= bound,
            }
    return bars


def markdown(content: Mapping[str, Any]) -> str:
    """The table for readers."""
    sizes = content["parameters"]
    total = sum(sizes.values())
    share = 100 * (sizes["vision"] + sizes["projector"]) / sizes["language"]
    out = [
        f"# Cost of VKD and GradDiff, geometry {content['geometry']}",
        "",
        f"Random {content['dtype']} weights, {total / 1e6:,.0f} M parameters: tower "
        f"{sizes['vision'] / 1e6:,.1f} M, projector {sizes['projector'] / 1e6:,.1f} M, language "
        f"model {sizes['language'] / 1e6:,.1f} M (tower and projector are {share:.1f} % of it; in "
        f"LLaVA-1.5-7B {content['share_of_llava_1_5_7b']:.1f} %). {content['device']}, "
        f"{content['threads']} threads. A step sees 4 records to forget and 4 to keep, each with "
        f"{IMAGE_TOKENS} image and {TEXT_TOKENS} text tokens. Seconds a step are the mean of the "
        f"steps behind the first; an epoch is the preparation (targets, teacher, masks) and "
        f"{EPOCH} steps. Memory is the peak above an empty process"
        + (f" ({content['empty_mb']:,.0f} MB)." if content["empty_mb"] else ", on the GPU."),
        "",
        f"Made by `{content['command']}`.",
        "",
        "| arm | trained | prepare s | s a step | step ratio | epoch ratio | memory MB | ratio |",
        "|" + "---|" * 8,
    ]
    for name, arm in content["arms"].items():
        if "step_s" not in arm:
            out.append(f"| {name} | | | out of memory | | | | |")
            continue
        ratios = arm.get("ratios")
        step, epoch, memory = (
            [f"{ratios[r]:.2f}" for r in ("step", "epoch", "memory")] if ratios else ["-"] * 3
        )
        out.append(
            f"| {name} | {arm['trained_parameters'] / 1e6:,.1f} M | {arm['prepare_s']:.1f} | "
            f"{arm['step_s']:.2f} | {step} | {epoch} | {arm['above_empty_mb']:,.0f} | {memory} |"
        )
    out += ["", "| bar | at most | found | met |", "|---|---|---|---|"]
    for name, bar in content["bars"].items():
        met = "yes" if bar["met"] else "**no**"
        out.append(
            f"| {name}, ratio to full GradDiff | {bar['at_most']} | {bar['value']:.3f} | {met} |"
        )
    return "\n".join([*out, ""])


def main() -> None:
    """Run every arm, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=tuple(GEOMETRIES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=2, help="Counted steps, behind one more.")
    parser.add_argument("--result", type=Path, help="Where the result goes, .json.")
    parser.add_argument("--arm", choices=(EMPTY, *ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    if given.arm:
        try:
            found = measured(given)
        except torch.OutOfMemoryError:
            found = {"out_of_memory": True}
        print(json.dumps(found))
        return
    floor = run_arm(EMPTY, given)
    baseline, full = largest_that_fits(given)
    found = {baseline: full} | {arm: run_arm(arm, given) for arm in ARMS if arm != FULL}
    arms = {name: figures(arm, floor, given.device) for name, arm in found.items()}
    meta = {
        name: parameters(random_vlm(GEOMETRIES[name], device="meta", dtype=torch.bfloat16))
        for name in {given.geometry, "llava-1.5-7b"}
    }
    llava = meta["llava-1.5-7b"]
    content = {
        **conditions(
            f"python benchmarks/vkd_cost.py {' '.join(sys.argv[1:])}".strip(), given.device
        ),
        "geometry": given.geometry,
        "dtype": given.dtype,
        "parameters": meta[given.geometry],
        "share_of_llava_1_5_7b": 100 * (llava["vision"] + llava["projector"]) / llava["language"],
        "image_tokens": IMAGE_TOKENS,
        "text_tokens": TEXT_TOKENS,
        "batch": BATCH,
        "empty_mb": floor["peak_rss_mb"] if given.device == "cpu" else 0,
        "threads": full.get("threads", torch.get_num_threads()),
        "arms": arms,
        "bars": compared(arms, baseline),
    }
    suffix = "" if given.geometry == "small" else f"-{given.geometry}"
    result = given.result or RESULT.with_stem(RESULT.stem + suffix)
    write(result, content)
    result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
