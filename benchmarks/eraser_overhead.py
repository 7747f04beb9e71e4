"""What an eraser costs while a model answers, beside the same model without it.

    python benchmarks/eraser_overhead.py [--rounds 24]

A LLaVA of at least 100 million random parameters, batches of 1 and 16, gates that fire on every
photo and gates that fire on none. With and without an eraser a prompt is read and some tokens are
written in turns, on one thread; what counts is the median over rounds of the ratio within a round,
so that a machine that slows down slows both. Times are CPU times of that thread, which on an idle
machine are wall times. Entering the block is not counted: a server does it once. Prompts are short
(36 image tokens and one question), which flatters no eraser: its work hardly grows with the prompt.
Bars: prefill at most 1.03 times as long, a written token 1.01; batches of 1 and 16 give the same
answers. Writes `docs/results/eraser-overhead.{json,md}` in about three minutes; an idle machine
gives the narrowest intervals.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from cells import bars_table, conditions, write
from random_model import asked, random_eraser, random_vlm
from timing import Seconds, in_turns, ratio

from unsee.answering import generate_answers
from unsee.data.collate import encode
from unsee.erasers.protocol import Eraser, erased
from unsee.models.load import VLM

RESULT = Path("docs/results/eraser-overhead.json")
BARS = {"prefill": 1.03, "decode": 1.01}
WITHOUT = "without"


def answering(
    vlm: VLM, inputs: Mapping[str, Any], eraser: Eraser | None, tokens: int
) -> Callable[[], Seconds]:
    """Reads prompts and writes tokens greedily; seconds of the prefill, and of a token."""

    def run() -> Seconds:
        under = nullcontext() if eraser is None else erased(vlm, [eraser])
        mask = inputs["attention_mask"]
        with under, torch.inference_mode():
            began = time.process_time()
            out = vlm.model(**inputs, use_cache=True)
            read = time.process_time()
            for _ in range(tokens):
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
                out = vlm.model(
                    input_ids=out.logits[:, -1:].argmax(-1),
                    attention_mask=mask,
                    past_key_values=out.past_key_values,
                    use_cache=True,
                )
            written = time.process_time()
        return {"prefill": read - began, "decode": (written - read) / tokens}

    return run


def compared(
    vlm: VLM, erasers: Mapping[str, Eraser], batch: int, tokens: int, rounds: int
) -> dict[str, Any]:
    """Median seconds of a batch's prefill and token, without an eraser and under each; ratios."""
    inputs = encode(vlm, asked(batch), answers=False, side="left").inputs()
    cases = {WITHOUT: None, **erasers}
    runs = {name: answering(vlm, inputs, eraser, tokens) for name, eraser in cases.items()}
    times = in_turns(runs, rounds)
    return {
        name: {
            part: {
                "seconds": sorted(seconds)[len(seconds) // 2],
                "ratio": ratio(seconds, times[WITHOUT][part]),
            }
            for part, seconds in times[name].items()
        }
        for name in cases
    }


def same_answers(vlm: VLM, eraser: Eraser, tokens: int) -> bool:
    """Whether 16 questions of several lengths are answered alike one by one and together."""
    records = asked(16, various=True)
    with erased(vlm, [eraser]):
        alone, together = (
            generate_answers(vlm, records, batch_size=size, max_new_tokens=tokens)
            for size in (1, 16)
        )
    return alone == together


def markdown(content: Mapping[str, Any]) -> str:
    """The table for readers."""

    def times(cell: Mapping[str, Any]) -> str:
        low, high = cell["ratio"]["ci"]
        return f"{cell['ratio']['value']:.4f} [{low:.4f}, {high:.4f}]"

    out = [
        "# What an eraser costs while a model answers",
        "",
        f"Random LLaVA of {content['parameters'] / 1e6:,.0f} M parameters, float32, one thread; "
        f"{content['device']}. CPU seconds. Prompts of "
        f"{content['prompt_tokens']} tokens. Ratios are medians of rounds in which all cases take "
        "turns, with the 95 % interval (bootstrap by round).",
        "",
        f"Made by `{content['command']}`.",
        "",
        "| batch | rounds | eraser | prefill s | ratio | token s | ratio |",
        "|" + "---|" * 7,
    ]
    for batch, found in content["batches"].items():
        for name, cell in found["cases"].items():
            parts = [cell["prefill"], cell["decode"]]
            figures = [f"{part['seconds']:.4f} | {times(part)}" for part in parts]
            out.append(f"| {batch} | {found['rounds']} | {name} | {' | '.join(figures)} |")
    return "\n".join([*out, "", *bars_table(content["bars"]), ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24, help="of batch 1; a sixth of batch 16")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8, help="fewer for a try")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vlm = random_vlm(layers=given.layers)
    fires = random_eraser(vlm, 1, fires=True)
    erasers = {
        "one subject, fires": fires,
        "one subject, silent": random_eraser(vlm, 1, fires=False),
        "100 subjects, fires": random_eraser(vlm, 100, fires=True),
    }
    batches: dict[str, Any] = {}
    for batch, rounds in ((1, given.rounds), (16, max(1, given.rounds // 6))):
        cases = compared(vlm, erasers, batch, given.tokens, rounds)
        batches[str(batch)] = {"rounds": rounds, "cases": cases}
    bars: dict[str, Any] = {}
    for part, bound in BARS.items():
        for batch, found in batches.items():
            worst = max(found["cases"][name][part]["ratio"]["value"] for name in erasers)
            bars[f"{part}, batch {batch}"] = {"value": worst, "at_most": bound}
    differ = float(not same_answers(vlm, fires, given.tokens))
    bars["batches of 1 and 16 answer differently"] = {"value": differ, "at_most": 0.0}
    content = {
        **conditions(f"python benchmarks/eraser_overhead.py {' '.join(sys.argv[1:])}".strip()),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in vlm.model.parameters()),
        "prompt_tokens": encode(vlm, asked(1), answers=False, side="left").input_ids.shape[1],
        "batches": batches,
        "bars": {n: {**bar, "met": bar["value"] <= bar["at_most"]} for n, bar in bars.items()},
    }
    write(given.out, content)
    given.out.with_suffix(".md").write_text(markdown(content), encoding="utf-8")
    print("\n".join(bars_table(content["bars"])))


if __name__ == "__main__":
    main()
