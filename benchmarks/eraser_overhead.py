"""What an eraser costs while a model answers, beside the same model without it.

    python benchmarks/eraser_overhead.py [--repeats 30]

A LLaVA of at least 100 million random parameters, batches of 1 and 16, gates that fire on every
photo and gates that fire on none; the runs take turns on one thread, the medians count. Bars:
prefill at most 1.03 times as long, a decoded token 1.01; batches of 1 and 16 give the same answers.
Writes `docs/results/eraser-overhead.json`. Only an idle machine gives times worth keeping.
"""

import argparse
import os
import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from cells import write
from random_model import asked, medians, random_eraser, random_vlm

from unsee.answering import generate_answers
from unsee.artifacts import versions
from unsee.data.collate import encode
from unsee.erasers.protocol import erased

RESULT = Path("docs/results/eraser-overhead.json")
PREFILL, DECODE = 1.03, 1.01


def times(vlm: Any, erasers: dict[str, Any], batch: int, tokens: int, repeats: int) -> Any:
    """Seconds of a prefill and of a decoded token, without an eraser and under each."""
    inputs = encode(vlm, asked(batch), answers=False, side="left").inputs()

    def run(eraser: Any, new: int) -> Any:
        def go() -> None:
            with ExitStack() as stack:
                stack.enter_context(torch.inference_mode())
                if eraser is not None:
                    stack.enter_context(erased(vlm, [eraser]))
                more = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new}
                vlm.model.generate(**inputs, **more, pad_token_id=0)

        return go

    cases = {"without": None, **erasers}
    one = medians({name: run(eraser, 1) for name, eraser in cases.items()}, repeats)
    many = medians({name: run(eraser, 1 + tokens) for name, eraser in cases.items()}, repeats)
    decode = {name: (many[name] - one[name]) / tokens for name in cases}
    return {
        name: {
            "prefill_s": one[name],
            "decode_s": decode[name],
            "prefill": one[name] / one["without"],
            "decode": decode[name] / decode["without"],
        }
        for name in cases
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8, help="fewer for a try")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vlm = random_vlm(layers=given.layers)
    parameters = sum(p.numel() for p in vlm.model.parameters())
    erasers = {
        "fires": random_eraser(vlm, 1, fires=True),
        "silent": random_eraser(vlm, 1, fires=False),
        "fires, 100 subjects": random_eraser(vlm, 100, fires=True),
    }
    found = {
        f"batch {batch}": times(vlm, erasers, batch, given.tokens, given.repeats)
        for batch in (1, 16)
    }
    records = asked(16)
    with erased(vlm, [erasers["fires"]]):
        same = generate_answers(vlm, records, batch_size=1) == generate_answers(
            vlm, records, batch_size=16
        )
    worst = {
        part: max(case[part] for cases in found.values() for case in cases.values())
        for part in ("prefill", "decode")
    }
    bars = {
        "prefill": {"value": worst["prefill"], "at_most": PREFILL},
        "decode": {"value": worst["decode"], "at_most": DECODE},
        "batch 1 and 16 answer differently": {"value": float(not same), "at_most": 0.0},
    }
    content = {
        "command": f"python benchmarks/eraser_overhead.py --repeats {given.repeats}",
        "versions": versions(),
        "device": f"CPU, one thread of {os.cpu_count()}, {platform.machine()}",
        "parameters": parameters,
        "times": found,
        "bars": {n: {**bar, "met": bar["value"] <= bar["at_most"]} for n, bar in bars.items()},
    }
    write(given.out, content)
    for name, bar in content["bars"].items():
        print(f"{name}: {bar['value']:.4f} (at most {bar['at_most']}), met: {bar['met']}")


if __name__ == "__main__":
    main()
