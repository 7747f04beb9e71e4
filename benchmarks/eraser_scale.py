"""Time and memory of the first and of the thousandth forgotten person.

    python benchmarks/eraser_scale.py [--rounds 12]

On a LLaVA of at least 100 million random parameters, one thread: the fit of one subject from 5, 10
and 20 photos, with what is kept and the direction at hand, which should grow with its photos and
with nothing else (no fit knows of other subjects); a request's prefill and the gates' decision
under 1, 10, 100 and 1,000 subjects, the prefill flat within 10 % to 100; what joining so many
erasers takes when a server starts, and what they hold. Then the size of a subject at the geometry
of LLaVA-1.5-7B, at most 1.1 MB; and, on the built-in world's model, the fit of one subject beside
VKD with output terms on the same one, at most 0.05 times as long. VKD's wall time is taken as its
preparation and 150 times the fastest of a few steps.

Times are CPU times of the one thread, which on an idle machine are wall times. Writes
`docs/results/eraser-scale.{json,md}` in about four minutes; an idle machine gives the narrowest
intervals.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cells import PHOTOS as WORLD_PHOTOS
from cells import bars_table, conditions, write
from random_model import QUESTIONS, asked, random_eraser, random_photo, random_vlm
from timing import Seconds, in_turns, ratio

from unsee.data.collate import encode
from unsee.data.records import Record, Split
from unsee.data.world import read_split
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.protocol import erased
from unsee.erasers.steering import Gate, Steering
from unsee.methods.vkd import VKD
from unsee.models.load import VLM, load
from unsee.models.passes import Edit, Pass
from unsee.models.restore import restored
from unsee.train import train
from unsee.world import materialise

RESULT = Path("docs/results/eraser-scale.json")
PHOTOS = (5, 10, 20)
SUBJECTS = (1, 10, 100, 1000)
DECISIONS = 200
FLAT, LINEAR, MEGABYTES, BESIDE_VKD = 1.1, 1.1, 1.1, 0.05


def split_of(photos: int, kept: int) -> Split:
    """One person with so many photos, two questions on each; others to keep and strangers."""

    def about(name: str, shown: list[int]) -> tuple[Record, ...]:
        found = [random_photo(n) for n in shown]
        return tuple(Record(name, photo, q, "nobody") for photo in found for q in QUESTIONS[:2])

    others = [about(f"kept {n}", [1000 + n]) for n in range(kept)]
    return Split(
        forget=about("subject", list(range(photos))),
        retain=tuple(record for part in others for record in part),
        general=about("stranger", list(range(5000, 5004))),
        subjects=("subject",),
    )


def fits(vlm: VLM, kept: int) -> dict[str, Any]:
    """Seconds of fits by number of photos."""
    # Random weights tell recalling from refusing as well without a perturbation.
    method = MLLMEraser.model_validate({"iterations": 0, "pairs": 4})
    first = split_of(1, kept)
    at_hand = method.keep(vlm, first)
    method.fit(vlm, first, kept=at_hand)
    seconds = {}
    for photos in PHOTOS:
        split = split_of(photos, kept)
        began = time.process_time()
        method.fit(vlm, split, kept=at_hand)
        seconds[str(photos)] = time.process_time() - began
    return {"kept_rows": at_hand.rows, "seconds_by_photos": seconds}


def requests(vlm: VLM, rounds: int) -> dict[str, Any]:
    """A request's prefill, the decision in it, and what so many subjects hold."""
    inputs = encode(vlm, asked(1), answers=False, side="left").inputs()
    width = vlm.model.config.text_config.hidden_size
    hidden = torch.randn(1, inputs["input_ids"].shape[1], width)
    everywhere = torch.ones(hidden.shape[:2], dtype=torch.bool)
    here = torch.tensor([True])

    def prefill(eraser: Steering | None) -> Callable[[], Seconds]:
        def run() -> Seconds:
            under = nullcontext() if eraser is None else erased(vlm, [eraser])
            with under, torch.inference_mode():
                began = time.process_time()
                vlm.model(**inputs)
                return {"prefill": time.process_time() - began}

        return run

    def decision(edit: Edit) -> Callable[[], Seconds]:
        def run() -> Seconds:
            passes = [
                Pass(everywhere, everywhere, everywhere, True, here) for _ in range(DECISIONS)
            ]
            with torch.inference_mode():
                began = time.process_time()
                for now in passes:
                    edit(hidden, now)
                return {"decision": (time.process_time() - began) / DECISIONS}

        return run

    found: dict[str, Any] = {}
    prefills, decisions = {"without": prefill(None)}, {}
    for count in SUBJECTS:
        parts = [random_eraser(vlm, 1, fires=False, first=n) for n in range(count)]
        began = time.process_time()
        joined = parts[0].joined(parts[1:])
        edits = joined.edits(vlm)
        found[str(count)] = {
            "joining_s": time.process_time() - began,
            "bytes_a_subject": held(joined) / count,
        }
        prefills[str(count)] = prefill(joined)
        decisions[str(count)] = decision(next(iter(edits.values()))[0])
    took = in_turns(prefills, rounds)
    chosen = in_turns(decisions, rounds)
    for count in found:
        found[count] |= {
            "decision_s": sorted(chosen[count]["decision"])[rounds // 2],
            "beside_without": ratio(took[count]["prefill"], took["without"]["prefill"]),
            "beside_one": ratio(took[count]["prefill"], took["1"]["prefill"]),
        }
    return {
        "prefill_without_s": sorted(took["without"]["prefill"])[rounds // 2],
        "by_subjects": found,
    }


def held(eraser: Steering) -> int:
    """Bytes of its tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in eraser.tensors().values())


def megabytes_at_7b(gate: Gate, layers: int) -> float:
    """Of one subject's tensors in LLaVA-1.5-7B, with 3,000 states that were kept."""
    width, gates = 4096, layers if gate == "published" else 1
    plan = MLLMEraser().plan(random_vlm(width=64, layers=2), "visual")
    eraser = Steering(
        subjects=("subject",),
        base="",
        plan=replace(plan, depth=32, layers=tuple(range(32 - layers, 32)), gate=gate),
        directions=torch.zeros(1, layers, width),
        weights=torch.zeros(1, gates, width),
        biases=torch.zeros(1, gates),
        scores=((torch.zeros(3000),),) if gate == "calibrated" else (),
    )
    return held(eraser) / 1e6


def beside_vkd(steps: int) -> dict[str, Any]:
    """The fit of one subject and VKD's run on the same one, in the built-in world."""
    world = materialise()
    vlm = load(world / "base")
    whole = read_split(world, "dev", photos=WORLD_PHOTOS, part="dev")
    name = whole.subjects[0]
    split = replace(
        whole,
        forget=tuple(r for r in whole.forget if r.subject == name),
        visible=tuple(r for r in whole.visible if r.subject == name),
        subjects=(name,),
    )
    eraser = MLLMEraser()
    at_hand = eraser.keep(vlm, split)
    eraser.fit(vlm, split, kept=at_hand)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        eraser.fit(vlm, split, kept=at_hand)
        seconds.append(time.process_time() - began)
    whole_run = VKD().steps_for(split)
    stamps = []
    with restored(vlm.model):
        began = time.process_time()
        train(vlm, split, VKD(steps=steps), progress=lambda *_: stamps.append(time.process_time()))
    fastest = min(after - before for before, after in pairwise(stamps))
    # What comes before the first step, which is not slower than the preparation alone.
    prepare = stamps[0] - began - (stamps[1] - stamps[0])
    return {
        "photos": WORLD_PHOTOS,
        "fit_s": sorted(seconds)[1],
        "vkd_steps": whole_run,
        "vkd_prepare_s": max(0.0, prepare),
        "vkd_fastest_step_s": fastest,
        "vkd_s": max(0.0, prepare) + whole_run * fastest,
    }


def bars_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The bars of the issue, each with its figure."""
    seconds = content["fits"]["seconds_by_photos"]
    few, many = str(PHOTOS[0]), str(PHOTOS[-1])
    found = {
        "a request under 100 subjects beside one": (
            content["requests"]["by_subjects"]["100"]["beside_one"]["value"],
            FLAT,
        ),
        f"fit of {many} photos beside {PHOTOS[-1] // PHOTOS[0]} times that of {few}": (
            seconds[many] / seconds[few] / (PHOTOS[-1] / PHOTOS[0]),
            LINEAR,
        ),
    }
    for name, size in content["megabytes_at_llava_1_5_7b"].items():
        found[f"MB of a subject at LLaVA-1.5-7B, {name} gate"] = (size, MEGABYTES)
    if "beside_vkd" in content:
        times = content["beside_vkd"]
        found["fit of a subject beside VKD"] = (times["fit_s"] / times["vkd_s"], BESIDE_VKD)
    return {
        name: {"value": value, "at_most": bound, "met": value <= bound}
        for name, (value, bound) in found.items()
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The tables for readers."""

    def times(cell: Mapping[str, Any]) -> str:
        low, high = cell["ci"]
        return f"{cell['value']:.3f} [{low:.3f}, {high:.3f}]"

    out = [
        "# The first and the thousandth forgotten person",
        "",
        f"Random LLaVA of {content['parameters'] / 1e6:,.0f} M parameters, float32, one thread; "
        f"{content['device']}. CPU seconds. Ratios are medians of rounds in which all "
        "cases take turns, with the 95 % interval (bootstrap by round).",
        "",
        f"Made by `{content['command']}`.",
        "",
        "| subjects | prefill beside none | beside one | decision, ms | joining, s | kB each |",
        "|" + "---|" * 6,
    ]
    for count, cell in content["requests"]["by_subjects"].items():
        out.append(
            f"| {count} | {times(cell['beside_without'])} | {times(cell['beside_one'])} | "
            f"{1e3 * cell['decision_s']:.3f} | {cell['joining_s']:.3f} | "
            f"{cell['bytes_a_subject'] / 1e3:.1f} |"
        )
    out += [
        "",
        f"Fit of a subject, what is kept ({content['fits']['kept_rows']} rows) and the direction "
        "at hand; other subjects play no part in it:",
        "",
        "| photos | s |",
        "|---|---|",
        *(f"| {n} | {s:.1f} |" for n, s in content["fits"]["seconds_by_photos"].items()),
    ]
    if "beside_vkd" in content:
        vkd = content["beside_vkd"]
        out += [
            "",
            f"On the built-in world's model, one subject, {vkd['photos']} photos: fit "
            f"{vkd['fit_s']:.2f} s; VKD {vkd['vkd_s']:.0f} s ({vkd['vkd_steps']} steps at "
            f"the fastest seen, {vkd['vkd_fastest_step_s']:.2f} s, and {vkd['vkd_prepare_s']:.1f} "
            "s of preparation).",
        ]
    return "\n".join([*out, "", *bars_table(content["bars"]), ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--layers", type=int, default=8, help="fewer for a try")
    parser.add_argument("--kept", type=int, default=20, help="people to keep")
    parser.add_argument("--steps", type=int, default=10, help="of VKD; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vlm = random_vlm(layers=given.layers)
    content: dict[str, Any] = {
        **conditions(f"python benchmarks/eraser_scale.py {' '.join(sys.argv[1:])}".strip()),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in vlm.model.parameters()),
        "megabytes_at_llava_1_5_7b": {
            "calibrated": megabytes_at_7b("calibrated", 8),
            "published": megabytes_at_7b("published", 31),
        },
        "requests": requests(vlm, given.rounds),
    }
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, UNSEE_CACHE=cache):
        content["fits"] = fits(vlm, given.kept)
    if given.steps:
        content["beside_vkd"] = beside_vkd(given.steps)
    content["bars"] = bars_of(content)
    write(given.out, content)
    given.out.with_suffix(".md").write_text(markdown(content), encoding="utf-8")
    print("\n".join(bars_table(content["bars"])))


if __name__ == "__main__":
    main()
