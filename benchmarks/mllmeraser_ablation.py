"""What the parts of MLLMEraser are worth, and how well its gates tell whom a question is about.

    python benchmarks/mllmeraser_ablation.py [--only rows gates union] [--collect]

On development people alone: six are forgotten from five photos each; a quarter of those to keep is
never given to the method and is, with the development celebrities, the `bystander` set.

- rows: one setting at a time, answers scored.
- gates: area under the ROC curve of each gate's scores, a person's questions against those about
  others, at every layer but the first, whose input is the same for all prompts.
- union: how often any gate of n subjects fires on requests about people and strangers whom no gate
  was fitted on. The people to keep stand in as further subjects, each with a gate of its own from
  five photos and the others kept. Beyond as many gates as there are people nothing can be counted:
  there each gate's scores on those requests get a tail as its thresholds have, normal quantiles
  through the highest tenth, and n independent gates like these are assumed. The same estimate
  stands beside the count where there is one.

Cells are kept in `runs/mllmeraser-ablation`; a run that is whole, or `--collect`, which names what
is not there, writes `docs/results/mllmeraser-ablation.{json,md}`.
"""

import argparse
import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from cells import PHOTOS, Cell, Table, flat, kept, provenance, write
from sklearn.metrics import roc_auc_score
from torch import Tensor

from unsee.data.records import Record, Split
from unsee.data.world import read_split
from unsee.erasers.gates import share_of_each, threshold, unit_rms
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.rows import Kept, kept_states
from unsee.erasers.steering import Steering
from unsee.errors import ConfigError
from unsee.states import last_states
from unsee.trials import with_bystanders
from unsee.world import materialise

RESULT = Path("docs/results/mllmeraser-ablation.json")
DRAW = "dev"
ROWS: dict[str, list[dict[str, Any]]] = {
    "defaults": [{}],
    "direction": [{"direction": kind} for kind in ("text", "image", "random", "subject")],
    "layers": [{"layers": layers} for layers in ((1,), (2,), (2, 3), (1, 2, 3))],
    "strength": [{"strength": s} for s in (0.5, 1.0, 3.0)],
    "positions": [{"positions": "last"}],
    "gate": [{"gate": "published", "strength": 0.5}],
}
SHOWN = ("forget_seen", "forget_unseen", "retain_unseen", "bystander", "forget_visible", "general")
COUNTS = (1, 10, 100, 1000)
SUBSETS = 200
QUESTIONS_A_PHOTO = 4


def row(table: Table, axis: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One setting's scores, or why it could not be run."""
    named = {"axis": axis, "settings": settings}
    cell = Cell("mllmeraser", settings, DRAW, 0, "dev")
    try:
        pool = table.pooled([cell])
    except ConfigError as error:
        return {**named, "not_run": str(error).replace(str(table.world), "the world")}
    scores = pool.scores()
    return {
        **named,
        "summary": pool.summary(scores),
        "sets": flat(scores["erased"]),
        "degenerate": scores["erased"]["forget_unseen"]["degenerate_rate"]["value"],
    }


class Development:
    """The development people's requests and states, read when they are first needed."""

    def __init__(self, table: Table) -> None:
        self.vlm = table.vlm("base")
        split = read_split(table.world, DRAW, photos=PHOTOS, part="dev")
        self.split = with_bystanders(split)
        depth = len(self.vlm.layout.language_layer_paths(self.vlm.model))
        self.layers = tuple(range(1, depth))

    @cached_property
    def kept(self) -> Kept:
        """States on which no gate should fire, with and without photos."""
        usual = MLLMEraser()
        return kept_states(
            self.vlm,
            self.split,
            self.layers,
            count=usual.kept_rows,
            variants=usual.variants,
            seed=0,
            scope="both",
        )

    def kept_at(self, layer: int, wanted: Callable[[str, bool], bool]) -> Kept:
        """Those at one layer of the people, with or without a photo, that are wanted."""
        rows = [
            at
            for at, (name, shown) in enumerate(zip(self.kept.people, self.kept.shown, strict=True))
            if wanted(name, shown)
        ]
        return Kept(
            states=self.kept.states[rows][:, [self.layers.index(layer)]],
            people=tuple(self.kept.people[at] for at in rows),
            shown=tuple(self.kept.shown[at] for at in rows),
            group=tuple(self.kept.group[at] for at in rows),
            layers=(layer,),
        )

    def states(self, records: Sequence[Record]) -> Tensor:
        """(record, layer, width) at `layers`."""
        return last_states(self.vlm, records, self.layers).cpu()

    def requests(self) -> dict[str, tuple[list[Record], list[Record]]]:
        """By how they are asked: questions about the subjects, and about others."""
        sets = {name: list(records) for name, records in self.split.audit.items()}
        apart = sets["retain_unseen"] + sets["bystander"]
        strangers = [r for r in sets["general"] if r.image is not None] + sets["forget_visible"]
        told = [r for name in ("retain_text", "refusal", "general") for r in sets[name]]
        given, unseen = (_questions(sets[name]) for name in ("forget_seen", "forget_unseen"))
        return {
            "given photos and wordings": (sets["forget_seen"], sets["retain_seen"] + strangers),
            "unseen photos, given wordings": (
                _crossed(sets["forget_unseen"], given),
                _crossed(apart, given) + strangers,
            ),
            "given photos, unseen wordings": (
                _crossed(sets["forget_seen"], unseen),
                _crossed(sets["retain_seen"], unseen) + strangers,
            ),
            "unseen photos and wordings": (sets["forget_unseen"], apart + strangers),
            "by name, no photo": (sets["forget_text"], [r for r in told if r.image is None]),
        }


def _questions(records: Sequence[Record]) -> list[Record]:
    return list({r.question: r for r in records if r.form == "open"}.values())


def _crossed(shown: Sequence[Record], asked: Sequence[Record]) -> list[Record]:
    """Every photo with a few of the questions, in turn."""
    photos = dict.fromkeys((r.subject, r.image) for r in shown)
    found = []
    for number, (subject, photo) in enumerate(photos):
        for place in range(QUESTIONS_A_PHOTO):
            question = asked[(QUESTIONS_A_PHOTO * number + place) % len(asked)]
            found.append(replace(question, subject=subject, image=photo))
    return found


def curves(people: Development) -> dict[str, Any]:
    """Areas under the ROC curve by gate, layer and way of asking, over the subjects."""
    requests = {
        kind: (own, others, people.states(own), people.states(others))
        for kind, (own, others) in people.requests().items()
    }
    found = []
    for layer in people.layers:
        # What is steered plays no part here.
        plain = {"direction": "subject", "layers": (layer,)}
        published = MLLMEraser.model_validate({**plain, "gate": "published"}).fit(
            people.vlm,
            people.split,
            kept=people.kept_at(layer, lambda _, shown: shown),
        )
        calibrated = MLLMEraser.model_validate(plain).fit(
            people.vlm,
            people.split,
            kept=people.kept_at(layer, lambda *_: True),
            scope="both",
        )
        at = people.layers.index(layer)
        for name, eraser, gate in (
            ("published", published, 0),
            ("calibrated", calibrated, 0),
            ("calibrated, for questions by name", calibrated, 1),
        ):
            areas = {
                kind: _areas(eraser, gate, own, others, here[:, at], there[:, at])
                for kind, (own, others, here, there) in requests.items()
                if gate == 0 or kind.startswith("by name")
            }
            found.append({"gate": name, "layer": layer, "auc": areas})
    counts = {kind: [len(own), len(others)] for kind, (own, others, *_) in requests.items()}
    return {"requests": counts, "gates": found}


def _areas(
    eraser: Steering,
    gate: int,
    own: Sequence[Record],
    others: Sequence[Record],
    here: Tensor,
    there: Tensor,
) -> dict[str, float]:
    """Mean and lowest area over subjects; others are not those who are forgotten beside them."""
    found = []
    for place, name in enumerate(eraser.subjects):
        mine = [at for at, r in enumerate(own) if r.subject == name]
        rest = [
            at
            for at, r in enumerate(others)
            if r.subject == name or r.subject not in eraser.subjects
        ]
        positive = _scores(eraser, place, gate, here[mine])
        negative = _scores(eraser, place, gate, there[rest])
        truth = [1] * len(positive) + [0] * len(negative)
        found.append(float(roc_auc_score(truth, torch.cat([positive, negative]).numpy())))
    return {"mean": sum(found) / len(found), "lowest": min(found)}


def _scores(eraser: Steering, place: int, gate: int, states: Tensor) -> Tensor:
    read = unit_rms(states) if eraser.plan.gate == "calibrated" else states
    return read.double() @ eraser.weights[place, gate].double() + eraser.biases[place, gate]


def union(people: Development) -> dict[str, Any]:
    """How often n gates together fire on others, and how many of their own questions they catch."""
    usual = MLLMEraser()
    layer = usual.plan(people.vlm, "visual").layers[0]
    at, split = people.layers.index(layer), people.split
    real = usual.fit(people.vlm, split, kept=people.kept_at(layer, lambda _, shown: shown))
    parts = [real]
    for name in sorted({r.subject for r in split.retain}):
        others = people.kept_at(layer, lambda who, shown, me=name: shown and who != me)
        parts.append(usual.fit(people.vlm, _as_subject(split, name), kept=others))
    eraser = parts[0].joined(parts[1:])
    gates = len(eraser.subjects)
    audit = split.audit
    strangers = [r for r in audit["general"] if r.image is not None]
    groups = {"known people": list(audit["bystander"]), "strangers": strangers}
    scores = {
        kind: _all_scores(eraser, people.states(records)[:, at]) for kind, records in groups.items()
    }
    own = list(audit["forget_unseen"])
    mine = _all_scores(eraser, people.states(own)[:, at])
    place = {name: number for number, name in enumerate(eraser.subjects)}
    right = torch.tensor([place[r.subject] for r in own])
    found = []
    for count in sorted({*COUNTS, gates}):
        limits = _thresholds(eraser, count)
        caught = (mine > limits)[torch.arange(len(own)), right].double().mean().item()
        rates = {
            kind: {
                "counted": _counted(values > limits, count) if count <= gates else None,
                "from_tails": _from_tails(values, limits, count),
            }
            for kind, values in scores.items()
        }
        found.append({"subjects": count, "caught": caught, "fires": rates})
    return {
        "layer": layer,
        "asked_for": usual.false_fire,
        "gates": {"forgotten": len(real.subjects), "stand-ins": gates - len(real.subjects)},
        "requests": {"own": len(own), **{kind: len(records) for kind, records in groups.items()}},
        "by_subjects": found,
    }


def _as_subject(split: Split, name: str) -> Split:
    """A person to keep in the place of the subjects, from as many photos."""
    mine = [r for r in split.retain if r.subject == name and r.image is not None]
    photos = list(dict.fromkeys(r.image for r in mine))[:PHOTOS]
    taught = [r for r in mine if r.image in photos]
    return Split(
        forget=tuple(r for r in taught if not r.topic.startswith("visible")),
        visible=tuple(r for r in taught if r.topic.startswith("visible")),
        retain=tuple(r for r in split.retain if r.subject != name),
        general=split.general,
        subjects=(name,),
    )


def _all_scores(eraser: Steering, states: Tensor) -> Tensor:
    """(request, subject)."""
    return torch.stack(
        [_scores(eraser, place, 0, states) for place in range(len(eraser.subjects))], 1
    )


def _thresholds(eraser: Steering, count: int) -> Tensor:
    each = share_of_each(eraser.plan.false_fire, count)
    found = [threshold(gates[0], each) for gates in eraser.scores]
    return torch.tensor(found, dtype=torch.float64).minimum(eraser.ceilings[:, 0].double())


def _counted(fires: Tensor, count: int) -> float:
    """Share of requests on which any of `count` gates fires, over random choices of them."""
    rng = random.Random(0)
    everybody = range(fires.shape[1])
    chosen = [rng.sample(everybody, count) for _ in range(SUBSETS)]
    return sum(fires[:, some].any(1).double().mean().item() for some in chosen) / SUBSETS


def _from_tails(scores: Tensor, limits: Tensor, count: int) -> float:
    """1 - (1 - p)^count with 1 - p the geometric mean over gates, p from each gate's own tail."""
    stays = 0.0
    for values, limit in zip(scores.T, limits.tolist(), strict=True):
        ordered = values.sort().values
        # `threshold` falls as the share rises: halve between shares until it meets the limit.
        low, high = math.log(1e-15), math.log(0.5)
        for _ in range(50):
            middle = (low + high) / 2
            if threshold(ordered, math.exp(middle)) > limit:
                low = middle
            else:
                high = middle
        stays += math.log1p(-math.exp(high))
    return 1 - math.exp(count * stays / len(limits))


def markdown(content: Mapping[str, Any]) -> str:
    """The tables for readers."""
    out = [
        "# MLLMEraser, its parts and its gates",
        "",
        "Six development people, five photos each, scope visual, one run a row (seed 0); nothing "
        "here is reported elsewhere. `bystander`: a quarter of the people to keep, never given to "
        "the method, and the two development celebrities.",
        "",
        f"Made by `{content['command']}`; raw figures in `{RESULT.name}`.",
    ]
    if content["rows"]:
        out += ["", "## One setting at a time", "", *_rows_table(content["rows"])]
    if content["gates"]:
        out += ["", "## Gates", "", *_curves_table(content["gates"])]
    if content["union"]:
        out += ["", "## Many subjects", "", *_union_table(content["union"])]
    if content["not_run"]:
        out += ["", f"Not run: {'; '.join(content['not_run'])}."]
    return "\n".join([*out, ""])


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["axis", "setting", "score", "gap", "keep", *(f"`{name}`" for name in SHOWN)]
    head += ["unknown", "degenerate"]
    out = [
        "Accuracy on open questions in per cent with the 95 % interval (bootstrap by person); how "
        "often it says that it does not know, and answers no text, on `forget_unseen`.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for each in rows:
        setting = ", ".join(f"`{name}={value}`" for name, value in each["settings"].items())
        sets = each["sets"]
        figures = [
            f"{value:.3f}" if isinstance(value := each["summary"][key], float) else "-"
            for key in ("score", "forget_gap", "keep")
        ]
        for name in SHOWN:
            cell = sets[name]["accuracy"]
            low, high = (100 * end for end in cell["ci"])
            figures.append(f"{100 * cell['value']:.1f} [{low:.0f}, {high:.0f}]")
        figures.append(f"{100 * sets['forget_unseen']['unknown_rate']['value']:.1f}")
        figures.append(f"{100 * each['degenerate']:.1f}")
        out.append(f"| {each['axis']} | {setting} | " + " | ".join(figures) + " |")
    return out


def _curves_table(found: Mapping[str, Any]) -> list[str]:
    kinds = list(found["requests"])
    out = [
        "Area under the ROC curve of the scores, a subject's questions against those about people "
        "to keep, bystanders, strangers and what is visible on the subject's own photos: mean over "
        "subjects and, in brackets, the lowest. States as they are without steering. Scope visual "
        "never asks a photo's gate about a prompt without one; the last column says what it would "
        "answer. "
        + " ".join(
            f"{kind.capitalize()}: {own} questions against {others}."
            for kind, (own, others) in found["requests"].items()
        ),
        "",
        "| gate | layer | " + " | ".join(kinds) + " |",
        "|" + "---|" * (len(kinds) + 2),
    ]
    for each in found["gates"]:
        cells = [
            f"{each['auc'][kind]['mean']:.4f} ({each['auc'][kind]['lowest']:.3f})"
            if kind in each["auc"]
            else "-"
            for kind in kinds
        ]
        out.append(f"| {each['gate']} | {each['layer']} | " + " | ".join(cells) + " |")
    return out


def _union_table(found: Mapping[str, Any]) -> list[str]:
    asked, gates = found["requests"], found["gates"]
    out = [
        f"Calibrated gates at layer {found['layer']}, {100 * found['asked_for']:g} % asked for all "
        f"together: {gates['forgotten']} of people who are forgotten and {gates['stand-ins']} of "
        "people to keep who stand in as further subjects. Share of requests about others on which "
        f"any gate fires, in per cent: {asked['known people']} about people whom the model knows "
        f"and no gate was fitted on, {asked['strangers']} about strangers. Counted over random "
        "choices of so many gates; beyond their number only estimated, from normal tails of each "
        "gate's scores on these very requests, for independent gates like these. Caught: share of "
        f"the forgotten people's own {asked['own']} questions on unseen photos above the "
        "thresholds that go with so many subjects.",
        "",
        "| subjects | known, counted | from tails | strangers, counted | from tails | caught |",
        "|" + "---|" * 6,
    ]
    for each in found["by_subjects"]:
        figures = []
        for kind in ("known people", "strangers"):
            rates = each["fires"][kind]
            counted = rates["counted"]
            figures.append("-" if counted is None else f"{100 * counted:.2f}")
            figures.append(f"{100 * rates['from_tails']:.2f}")
        figures.append(f"{100 * each['caught']:.1f}")
        out.append(f"| {each['subjects']} | " + " | ".join(figures) + " |")
    return out


def main() -> None:
    """Run what is not there yet, and collect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("rows", "gates", "union")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--first", type=int, help="run only so many rows")
    parser.add_argument("--folder", type=Path, default=Path("runs/mllmeraser-ablation"))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    table = Table(materialise(), given.folder)
    listed = [(axis, settings) for axis, many in ROWS.items() for settings in many]
    refused = {}
    if not given.collect and "rows" in given.only:
        for axis, settings in listed[: given.first]:
            why = row(table, axis, settings).get("not_run")
            if why is not None:
                refused[str(settings)] = why
            print(axis, settings, why or "", flush=True)
    people = Development(table)
    usual = json.dumps(MLLMEraser().model_dump(mode="json"))
    digest = hashlib.sha256(usual.encode()).hexdigest()[:10]
    makes = {"gates": curves, "union": union}
    paths = {
        name: table.folder / f"{name}-{digest}-{people.vlm.fingerprint}.json" for name in makes
    }
    if not given.collect:
        for name, make in makes.items():
            if name in given.only:
                kept(paths[name], people.split, lambda make=make: make(people))
                print(name, flush=True)
        if len(given.only) < len(parts) or given.first is not None:
            return
    collect(table, listed, refused, paths, given.out)


def collect(
    table: Table,
    listed: Sequence[tuple[str, dict[str, Any]]],
    refused: Mapping[str, str],
    paths: Mapping[str, Path],
    out: Path,
) -> None:
    """Write the result file and its page from what is there, and name what is not."""
    content: dict[str, Any] = provenance("python benchmarks/mllmeraser_ablation.py", table)
    content |= {"defaults": MLLMEraser().model_dump(mode="json"), "rows": [], "not_run": []}
    for axis, settings in listed:
        if table.path(Cell("mllmeraser", settings, DRAW, 0, "dev")).exists():
            content["rows"].append(row(table, axis, settings))
        else:
            why = refused.get(str(settings))
            content["not_run"].append(f"{axis} {settings}" + (f" ({why})" if why else ""))
    for name, path in paths.items():
        content[name] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if content[name] is None:
            content["not_run"].append(name)
    write(out, content)
    out.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
