"""How fast does the visual part learn forgotten people again? One curve, beside gold's.

    python benchmarks/relearning.py

The attack `relearning_curve` trains tower and projector of the erased model on a share p of the
forget pairs and is scored on `forget_unseen`, photos and wordings it did not train on. The same is
done to gold, which never knew them: gain(p) = accuracy after - before, and

    AG(p) = gain of erased - gain of gold,    AG = mean over p; lower is more robust.

Draw A, seed 0. Kept in `runs/relearning`; writes `docs/results/relearning.{json,md}`. There is no
bar on it yet.
"""

from pathlib import Path
from typing import Any

from cells import Table, provenance, write

from unsee.answering import generate_answers
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given
from unsee.methods.vkd import VKD
from unsee.metrics.answers import accuracy
from unsee.metrics.intervals import mean_interval
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.train import train
from unsee.world import materialise

RESULT = Path("docs/results/relearning.json")
ATTACK = ATTACKS.get("relearning_curve")()
DRAW = "A"


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
    tries: Any = ATTACK.tries(vlm, Given(split))
    for share, one in zip(ATTACK.shares, tries, strict=True):
        with one.change(vlm):
            points.append({"share": share, "pairs": round(share * len(split.forget)), **score()})
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
        "attacker": ATTACK.model_dump(mode="json"),
        "erased": erased,
        "gold": gold,
        "AG": dict(zip(map(str, ATTACK.shares), gains, strict=True)),
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
