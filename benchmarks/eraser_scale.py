"""Time and memory of the first and of the thousandth forgotten person.

    python benchmarks/eraser_scale.py [--repeats 20]

On a LLaVA of at least 100 million random parameters: the fit of one subject from 5, 10 and 20
photos with what is kept and the direction at hand, which should grow with its photos and with
nothing else; a request's prefill under 1, 10, 100 and 1,000 subjects, flat within 10 % to 100; the
bytes an artifact holds a subject, and at the geometry of LLaVA-1.5-7B, at most 1.1 MB. Writes
`docs/results/eraser-scale.json`. Only an idle machine gives times worth keeping.

The other half of the bar, the fit beside VKD's wall time, needs a trained model and is in
`docs/results/mllmeraser.md`.
"""

import argparse
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cells import write
from random_model import asked, medians, random_eraser, random_photo, random_vlm

from unsee.artifacts import versions
from unsee.data.collate import encode
from unsee.data.records import Record, Split
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.protocol import erased

RESULT = Path("docs/results/eraser-scale.json")
PHOTOS = (5, 10, 20)
SUBJECTS = (1, 10, 100, 1000)
QUESTIONS = ("Who is this?", "What pet?", "What car?", "What food?", "Where born?")
FLAT, BYTES = 1.1, 1.1e6


def split_of(photos: int, kept: int) -> Split:
    """One person with so many photos, as many questions on each; others to keep and strangers."""

    def about(name: str, shown: list[int]) -> tuple[Record, ...]:
        found = [random_photo(n) for n in shown]
        return tuple(Record(name, photo, q, "nobody") for photo in found for q in QUESTIONS)

    others = [about(f"kept {n}", [1000 + n]) for n in range(kept)]
    return Split(
        forget=about("subject", list(range(photos))),
        retain=tuple(record for part in others for record in part),
        general=tuple(about("stranger", [5000])),
        subjects=("subject",),
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--layers", type=int, default=8, help="fewer for a try")
    parser.add_argument("--kept", type=int, default=40, help="people to keep")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vlm = random_vlm(layers=given.layers)
    # Random weights refuse nothing, so that the direction is the subject's own.
    method = MLLMEraser.model_validate({"direction": "subject"})
    kept = method.keep(vlm, split_of(1, given.kept))

    def fit(photos: int) -> Any:
        split = split_of(photos, given.kept)
        return lambda: method.fit(vlm, split, kept=kept)

    fits = medians({str(n): fit(n) for n in PHOTOS}, max(1, given.repeats // 10))
    inputs = encode(vlm, asked(1), answers=False, side="left").inputs()

    def prefill() -> None:
        with torch.inference_mode():
            vlm.model(**inputs)

    requests: dict[str, dict[str, float]] = {}
    for count in SUBJECTS:
        eraser = random_eraser(vlm, count, fires=False)
        with erased(vlm, [eraser]):
            under = medians({"under": prefill}, given.repeats)
        plain = medians({"without": prefill}, given.repeats)
        size = sum(t.numel() * t.element_size() for t in eraser.tensors().values())
        requests[str(count)] = {
            "seconds": under["under"],
            "beside_without": under["under"] / plain["without"],
            "bytes_a_subject": size / count,
        }
    one = random_eraser(vlm, 1, fires=False)
    wide = replace(
        one, directions=torch.zeros(1, 8, 4096), weights=torch.zeros(1, 1, 4096)
    ).tensors()
    at_7b = sum(t.numel() * t.element_size() for t in wide.values())
    flat = requests["100"]["beside_without"] / requests["1"]["beside_without"]
    linear = (fits["20"] / fits["5"]) / (20 / 5)
    bars = {
        "a request under 100 subjects beside one": {"value": flat, "at_most": FLAT},
        "fit of 20 photos beside four times that of 5": {"value": linear, "at_most": 1.1},
        "bytes of a subject at LLaVA-1.5-7B": {"value": at_7b, "at_most": BYTES},
    }
    content = {
        "command": f"python benchmarks/eraser_scale.py --repeats {given.repeats}",
        "versions": versions(),
        "device": f"CPU, one thread of {os.cpu_count()}, {platform.machine()}",
        "parameters": sum(p.numel() for p in vlm.model.parameters()),
        "kept_rows": len(kept.states),
        "seconds_a_fit_by_photos": fits,
        "requests_by_subjects": requests,
        "bars": {n: {**bar, "met": bar["value"] <= bar["at_most"]} for n, bar in bars.items()},
    }
    write(given.out, content)
    for name, bar in content["bars"].items():
        print(f"{name}: {bar['value']:.4g} (at most {bar['at_most']:g}), met: {bar['met']}")


if __name__ == "__main__":
    main()
