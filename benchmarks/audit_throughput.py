"""Questions a second: `unsee.answering.generate_answers` beside one prompt at a time.

    python benchmarks/audit_throughput.py

The model is the built-in world's base, the questions are those of draw A's audit; the loop is given
some of them, spread evenly. It is what one writes with Hugging Face alone: processor, `generate`,
decode, for each question. Both answer greedily, up to 32 tokens, and are warmed up; they take
turns, and each's best counts.
Writes `docs/results/audit-throughput.{json,md}`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import PHOTOS, conditions, write

from unsee.answering import generate_answers
from unsee.data.conversation import prompt
from unsee.data.records import Record
from unsee.data.world import read_split
from unsee.models.load import VLM, load
from unsee.world import materialise

RESULT = Path("docs/results/audit-throughput.json")
AT_LEAST = 8
NEW_TOKENS = 32
# The loop is slow: it answers every so many-th of the questions.
FEWER = 40
ROUNDS = 2


def one_at_a_time(vlm: VLM, records: Sequence[Record]) -> list[str]:
    """What Hugging Face's own classes are used like."""
    tokenizer = vlm.processor.tokenizer
    answers = []
    for record in records:
        images = None if record.image is None else [record.image.open()]
        inputs = vlm.processor(
            images=images, text=prompt(vlm.processor, record), return_tensors="pt"
        )
        with torch.inference_mode():
            tokens = vlm.model.generate(
                **inputs, do_sample=False, max_new_tokens=NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        reply = tokens[0, inputs["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(reply, skip_special_tokens=True).strip())
    return answers


def timed(ask: Callable[..., list[str]], vlm: VLM, records: Sequence[Record]) -> tuple[Any, float]:
    """Answers, and questions a second."""
    began = time.monotonic()
    answers = ask(vlm, records)
    return answers, len(records) / (time.monotonic() - began)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    world = materialise()
    vlm = load(world / "base", device="cpu")
    audit = read_split(world, "A", photos=PHOTOS).audit
    chosen = [record for records in audit.values() for record in records]
    few = chosen[::FEWER]
    generate_answers(vlm, few)
    one_at_a_time(vlm, few[:2])
    batched, single = [], []
    for _ in range(ROUNDS):
        together, rate = timed(generate_answers, vlm, chosen)
        batched.append(rate)
        alone, rate = timed(one_at_a_time, vlm, few)
        single.append(rate)
    ratio = max(batched) / max(single)
    content = {
        **conditions(f"python benchmarks/audit_throughput.py {' '.join(sys.argv[1:])}".strip()),
        "threads": torch.get_num_threads(),
        "base_fingerprint": vlm.fingerprint,
        "questions": {"generate_answers": len(chosen), "one prompt at a time": len(few)},
        "questions_per_second": {"generate_answers": batched, "one prompt at a time": single},
        "same_answers": [
            sum(a == b for a, b in zip(together[::FEWER], alone, strict=True)),
            len(few),
        ],
        "bars": {"ratio": {"value": ratio, "at_least": AT_LEAST, "met": ratio >= AT_LEAST}},
    }
    write(given.result, content)
    given.result.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def markdown(content: dict[str, Any]) -> str:
    """The figures for readers."""
    bar = content["bars"]["ratio"]
    same, asked = content["same_answers"]
    rows = [
        f"| {name} | {content['questions'][name]} | "
        + " | ".join(f"{rate:.1f}" for rate in rates)
        + " |"
        for name, rates in content["questions_per_second"].items()
    ]
    return "\n".join(
        [
            "# Questions a second",
            "",
            f"The built-in world's base on {content['device']}, {content['threads']} threads; "
            f"greedy, up to {NEW_TOKENS} tokens. Made by `{content['command']}`.",
            "",
            "| | questions | " + " | ".join(f"round {n + 1}" for n in range(ROUNDS)) + " |",
            "|" + "---|" * (2 + ROUNDS),
            *rows,
            "",
            f"Ratio of the best rounds {bar['value']:.1f}; the bar is at least {bar['at_least']}: "
            f"{'met' if bar['met'] else '**missed**'}. {same} of {asked} answers are the same.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
