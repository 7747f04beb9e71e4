"""How fast does the visual part learn forgotten people again? One curve, beside gold's.

    python benchmarks/relearning.py

The attacker trains tower and projector of the erased model on a share p of the forget photos'
questions and is scored on `forget_unseen`, photos and wordings it did not train on. The same is
done to gold, which never knew them: gain(p) = accuracy after - before, and

    AG(p) = gain of erased - gain of gold,    AG = mean over p; lower is more robust.

Draw A, seed 0. Kept in `runs/relearning`; writes `docs/results/relearning.{json,md}`. There is no
bar on it yet.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from cells import Table, provenance, write

from unsee.answering import generate_answers
from unsee.losses import cross_entropy
from unsee.method import Terms, Trained
from unsee.methods.vkd import VKD
from unsee.metrics.answers import accuracy
from unsee.metrics.intervals import mean_interval
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.sampling import PairBatch
from unsee.train import train
from unsee.world import materialise

RESULT = Path("docs/results/relearning.json")
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
DRAW = "A"


class Relearn(Trained):
    """Cross-entropy on the forget answers, visual part only."""

    kind: ClassVar[str] = "weights"
    steps: int = 50
    lr: float = 3e-4
    visible_batch: int = 0
    retain_batch: int = 1
    general_batch: int = 1
    checkpoint_every: int = 0

    def trainable(self, vlm: VLM) -> list[str]:
        """Tower and projector."""
        return vlm.layout.parameter_names(vlm.model, ["vision", "projector"])

    def prepare(self, vlm: VLM, split: Any, *, seed: int) -> None:
        """Needs nothing."""

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """Descent on the answers that were to be forgotten."""
        logits = vlm.model(**batch.forget.batch.inputs(), use_cache=False).logits
        return Terms(
            forget={"answers": cross_entropy(logits, batch.forget.batch.labels)}, retain={}
        )


def curve(vlm: VLM, split: Any) -> list[dict[str, Any]]:
    """Accuracy on `forget_unseen` before, and after relearning on each share."""
    asked = [r for r in split.audit["forget_unseen"] if r.form == "open"]

    def score() -> dict[str, Any]:
        right = [
            accuracy(r, a)
            for r, a in zip(asked, generate_answers(vlm, asked, batch_size=128), strict=True)
        ]
        found = mean_interval(right, [r.subject for r in asked])
        return {"value": found.value, "ci": [found.low, found.high], "n": len(right)}

    points = [{"share": 0.0, **score()}]
    shuffled = random.Random(0).sample(split.forget, len(split.forget))
    for share in SHARES:
        given = tuple(shuffled[: max(1, round(share * len(shuffled)))])
        with restored(vlm.model):
            train(vlm, replace(split, forget=given), Relearn(), seed=0)
            points.append({"share": share, "pairs": len(given), **score()})
        print(points[-1], flush=True)
    return points


def main() -> None:
    """Both curves, and their difference."""
    world = materialise()
    table = Table(world, Path("runs/relearning"))
    split = table.split(DRAW, "report")
    vlm = table.vlm("base")
    with restored(vlm.model):
        train(vlm, split, VKD(), seed=0)
        erased = curve(vlm, split)
    gold = curve(table.vlm("gold"), split)
    gains = [
        (e["value"] - erased[0]["value"]) - (g["value"] - gold[0]["value"])
        for e, g in zip(erased[1:], gold[1:], strict=True)
    ]
    content = provenance("python benchmarks/relearning.py", table) | {
        "draw": DRAW,
        "attacker": Relearn().model_dump(mode="json"),
        "erased": erased,
        "gold": gold,
        "AG": dict(zip(map(str, SHARES), gains, strict=True)),
        "AG_mean": sum(gains) / len(gains),
    }
    write(RESULT, content)
    lines = [
        "# Relearning, visual part only",
        "",
        "Accuracy on `forget_unseen` (open questions, draw A, seed 0, 95 % interval by person) "
        "after 50 steps of training tower and projector on a share of the forget pairs. "
        "AG(p) = gain of erased - gain of gold; lower is more robust. Made by "
        f"`{content['command']}`.",
        "",
        "| share | pairs | erased | gold | AG(p) |",
        "|---|---|---|---|---|",
    ]
    for e, g in zip(erased, gold, strict=True):
        values = [
            f"{100 * m['value']:.1f} [{100 * m['ci'][0]:.0f}, {100 * m['ci'][1]:.0f}]"
            for m in (e, g)
        ]
        ag = f"{100 * content['AG'][str(e['share'])]:+.1f}" if e["share"] else ""
        lines.append(
            f"| {e['share']:.0%} | {e.get('pairs', 0)} | {values[0]} | {values[1]} | {ag} |"
        )
    lines += [
        "",
        f"AG, mean over the shares: {100 * content['AG_mean']:+.1f} points (n = {erased[0]['n']}).",
        "",
    ]
    RESULT.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
