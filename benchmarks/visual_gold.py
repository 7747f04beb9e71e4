"""What may a method reach that leaves the language model as it is? A visual part that never knew.

    python benchmarks/visual_gold.py

Gold's tower and projector, which never saw a candidate, are put before base's language model,
which still has their facts, and trained on everybody else until they speak its language: the
language model frozen, as under VKD, the same lessons as gold's. What *this* model gives away about
the candidates lies in the language model alone, and no training of the visual part could have put
it there. It is asked, read by head projection and trained again as VKD's model is, beside base and
gold; draws A, B and C, VKD with seed i on draw i. Nothing is chosen by what comes out.

Kept in `runs/visual-gold`; writes `docs/results/visual-gold.{json,md}`.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Table, provenance, write
from safetensors.torch import load_file, save_file
from torch import nn

from unsee.answering import generate_answers
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given
from unsee.data.records import Record, Split
from unsee.methods.vkd import VKD
from unsee.metrics.answers import accuracy
from unsee.metrics.intervals import mean_interval
from unsee.models.load import VLM, load
from unsee.models.restore import restored
from unsee.train import train
from unsee.world import build, materialise
from unsee.world.curriculum import render
from unsee.world.drawn import Drawn
from unsee.world.families import ARCHITECTURES
from unsee.world.packing import Packer, packed_loss

RESULT = Path("docs/results/visual-gold.json")
FOLDER = Path("runs/visual-gold")
COMMAND = "python benchmarks/visual_gold.py"
DRAWS = ("A", "B", "C")
STEPS = 400
VISION_LR, PROJECTOR_LR = 5e-4, 1e-3
SHARES = (0.05, 1.0)
KEPT = ("forget_visible", "retain_unseen", "general", "celebrity")
READ = {"head_projection": "head projection", "probability_delta": "probability delta"}
ROWS = {
    "base": "base",
    "visual-gold": "visual part that never saw them, base's language model",
    "vkd": "VKD",
    "gold": "gold",
}


def never_saw(world: Path, folder: Path) -> Path:
    """Trains gold's visual part for base's language model; the file of its weights."""
    finished = folder / "visual.safetensors"
    if finished.exists():
        return finished
    architecture, source = ARCHITECTURES["llava"], Drawn(0)
    cast = source.cast(gold=True)
    vlm = load(world / "base")
    theirs = dict(load(world / "gold").model.named_parameters())
    own = dict(vlm.model.named_parameters())
    visual = vlm.layout.parameter_names(vlm.model, ["vision", "projector"])
    for name, p in own.items():
        p.requires_grad_(name in visual and not any(part in name for part in architecture.unread))
        if name in visual:
            p.data.copy_(theirs[name])
    packer = Packer(architecture, vlm.processor.tokenizer)
    recipe = replace(build.Recipe(), text_rows=0, steps=STEPS)

    def loss_of(step: int) -> torch.Tensor:
        pictures, lessons = build.lessons_of(cast, recipe, random.Random(f"visual-{step}"))
        rng = np.random.default_rng((source.seed, 2, step))
        pixels = build.jitter(build.pixels_of(render(pictures)), rng)
        packed = packer.pack(lessons, pictures=len(pictures))
        return packed_loss(architecture, vlm.model, packed, pixels)[0]

    tower = [p for n, p in own.items() if architecture.is_vision(n) and p.requires_grad]
    projector = [p for n, p in own.items() if not architecture.is_vision(n) and p.requires_grad]
    build.loop(
        nn.ModuleDict({"model": vlm.model}),
        [{"params": tower, "lr": VISION_LR}, {"params": projector, "lr": PROJECTOR_LR}],
        STEPS,
        loss_of,
        folder / "training.safetensors",
        recipe,
        lambda step, loss: print("step", step, round(loss, 3), flush=True),
    )
    partial_file = folder / "visual.partial"
    save_file({name: own[name].detach().contiguous() for name in visual}, partial_file)
    partial_file.replace(finished)
    return finished


@contextmanager
def with_visual_part(vlm: VLM, weights: Path) -> Iterator[None]:
    """The model with another tower and projector."""
    stored = load_file(weights)
    with restored(vlm.model, stored):
        for name, p in vlm.model.named_parameters():
            if name in stored:
                p.data.copy_(stored[name])
        yield


@contextmanager
def forgotten(vlm: VLM, split: Split, seed: int) -> Iterator[None]:
    """The model after VKD with its defaults."""
    with restored(vlm.model):
        train(vlm, split, VKD(), seed=seed)
        yield


def right(vlm: VLM, records: list[Record]) -> list[float]:
    """Which answers are right."""
    answers = generate_answers(vlm, records, batch_size=128)
    return [accuracy(r, a) for r, a in zip(records, answers, strict=True)]


def look(vlm: VLM, split: Split) -> dict[str, Any]:
    """Everything that is asked and read of one model on one draw: scores of single questions."""
    asked = [r for r in split.audit["forget_unseen"] if r.form == "open"]
    scores: dict[str, Sequence[float | None]] = {"asked": right(vlm, asked)}
    for name in KEPT:
        scores[name] = right(vlm, [r for r in split.audit[name] if r.form == "open"])
    for name in READ:
        for one in ATTACKS.get(name)(budgets=(1, 4)).tries(vlm, Given(split)):
            success = one.read(vlm, asked).success
            scores[f"{name} {one.name}"] = [None if np.isnan(s) else float(s) for s in success]
    curve = ATTACKS.get("relearning_curve")(shares=SHARES)
    for share, one in zip(SHARES, curve.tries(vlm, Given(split)), strict=True):
        with one.change(vlm):
            scores[f"relearned {share:.0%}"] = right(vlm, asked)
    return {"subjects": [r.subject for r in asked], "scores": scores}


def measured(table: Table, row: str, seed: int, draw: str, visual: Path) -> dict[str, Any]:
    """One model on one draw, from the folder if it was there before."""
    path = FOLDER / f"{row}-{draw}.json"
    if not path.exists():
        split = table.split(draw, "report")
        vlm = table.vlm("gold" if row == "gold" else "base")
        change: Callable[[], Any] = {
            "visual-gold": partial(with_visual_part, vlm, visual),
            "vkd": partial(forgotten, vlm, split, seed),
        }.get(row, nullcontext)
        with change():
            write(path, look(vlm, split))
        print(row, draw, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def pooled(parts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores on all draws together, with intervals by person where the same people are asked."""
    found = {}
    for name in parts[0]["scores"]:
        values = [value for part in parts for value in part["scores"][name]]
        subjects = [s for part in parts for s in part["subjects"]]
        if name in KEPT:
            found[name] = {"value": float(np.mean(values)), "n": len(values)}
            continue
        kept = [(v, s) for v, s in zip(values, subjects, strict=True) if v is not None]
        interval = mean_interval([v for v, _ in kept], [s for _, s in kept])
        found[name] = {
            "value": interval.value,
            "ci": [interval.low, interval.high],
            "n": len(kept),
        }
    return found


def page(rows: dict[str, dict[str, dict[str, Any]]], people: int) -> str:
    """The table and what stands in it."""
    columns = {
        "asked": "asked",
        **{f"{key} B={b}": f"{name}, B={b}" for key, name in READ.items() for b in (1, 4)},
        **{f"relearned {share:.0%}": f"relearned, p = {share:.0%}" for share in SHARES},
    }
    kept = {
        "forget_visible": "visible in their photos",
        "retain_unseen": "people to keep",
        "general": "strangers, general",
        "celebrity": "celebrities",
    }
    lines = [
        "# A visual part that never saw them, before a language model that knows them",
        "",
        f"`{COMMAND}`: LLaVA's world, the {people} people of draws A, B and C, whom the second row",
        "never saw: gold's tower and projector, trained on everybody else, with base's language",
        "model frozen. Share of questions on other photos of the forgotten people that are",
        "answered right when asked, found inside at any layer among B guesses, or answered",
        "after 50 steps of training tower and projector on a share p of the forgotten pairs;",
        "95 % intervals by person.",
        "",
        "| model | " + " | ".join(columns.values()) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row, label in ROWS.items():
        cells = [
            f"{100 * c['value']:.1f} [{100 * c['ci'][0]:.0f}, {100 * c['ci'][1]:.0f}]"
            for c in (rows[row][name] for name in columns)
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"n = {rows['base']['asked']['n']} questions; read inside are "
        f"{rows['base']['head_projection B=1']['n']} at B = 1 and "
        f"{rows['base']['head_projection B=4']['n']} at B = 4, those whose list of known answers "
        "is long enough.",
        "",
        "| model | "
        + " | ".join(f"{v}, n = {rows['base'][k]['n']}" for k, v in kept.items())
        + " |",
        "|---" * (len(kept) + 1) + "|",
    ]
    for row, label in ROWS.items():
        cells = [f"{100 * rows[row][name]['value']:.1f}" for name in kept]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train the visual part, look at every model, write the page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    table = Table(materialise(), FOLDER)
    visual = never_saw(table.world, FOLDER)
    rows, people = {}, 0
    for row in ROWS:
        parts = [measured(table, row, seed, draw, visual) for seed, draw in enumerate(DRAWS)]
        people = sum(len(set(part["subjects"])) for part in parts)
        rows[row] = pooled(parts)
    settings = {"steps": STEPS, "vision_lr": VISION_LR, "projector_lr": PROJECTOR_LR}
    write(RESULT, provenance(COMMAND, table) | {"training": settings, "rows": rows})
    RESULT.with_suffix(".md").write_text(page(rows, people), encoding="utf-8")


if __name__ == "__main__":
    main()
