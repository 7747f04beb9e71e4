"""Which metric can be trusted: told apart models that know and never knew, and not fooled.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --models 2 --questions 24 --steps 8 --folder DIR --out FILE

After the meta-evaluation of OpenUnlearning, https://arxiv.org/abs/2506.12618, on the development
people of the world alone, asked about photos that no model was trained on.

- **Faithfulness**: AUC of a metric between models that know these people (base; base trained on
  people to keep; gold, taught them) and models that never did (gold trained on people to keep, on
  strangers, and on false answers about the very same photos). Gold itself is in neither pool: it is
  what distances are measured from.
- **Stability** on models that unlearned: Q under 4 bits, R under short relearning beside gold,
  both means over these models. One that still answers more than half of what base does has not
  unlearned, and is named but not counted. Formulas, and what of them is our reading:
  `unsee.metrics.reliability`.

A model is made, asked and written down at a time, in `runs/metrics`; a second start goes on. Writes
`docs/results/metrics.{json,md}`, and the table by which reports order metrics,
`src/unsee/report/reliability.json`, where nothing was cut down.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import Table, provenance, write

from unsee.attacks.protocol import Given
from unsee.attacks.relearning import Lesson, Relearning
from unsee.attacks.weights import Int4
from unsee.audit.scoring import DISTANCE_SCORES, DISTANCES, score
from unsee.data.records import Record, Split
from unsee.data.world import read_split
from unsee.methods.grad_diff import GradDiff
from unsee.methods.vkd import VKD
from unsee.metrics.reliability import (
    faithfulness,
    quantisation_stability,
    relearning_stability,
    reliability,
)
from unsee.metrics.sets import METRICS
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.replies import Replies, records_digest
from unsee.train import train
from unsee.trials import spread
from unsee.world import materialise

RESULT = Path("docs/results/metrics.json")
ORDER = Path("src/unsee/report/reliability.json")
ASKED, KEPT = "forget_unseen", "retain_unseen"
QUESTIONS = 160
# Of base's right answers; with more, a model has not unlearned.
MOST_LEFT = 0.5
# Photos of each development person that a model may be taught from; others are asked.
TAUGHT_PHOTOS = 60
# Less of these is more knowledge.
FALLING = ("unknown_rate", "wrong_name_rate", "degenerate_rate")
# How far the unlearned stay from what they keep: less is more knowledge.
RETAINED = "_retain"

Samples = Mapping[str, Mapping[str, Sequence[float]]]
Lessons = Callable[[Split], Sequence[Record]]


@dataclass(frozen=True)
class Model:
    """One model of a pool.

    Attributes:
        name: Names its file.
        start: "base" or "gold".
        method: What it is trained with; None leaves it as it is.
        lessons: What a lesson teaches; None gives the method the split as it is.
        seed: Of training.
    """

    name: str
    start: str
    method: Any = None
    lessons: Lessons | None = None
    seed: int = 0

    def cut_to(self, steps: int | None) -> "Model":
        """The same, trained for so many steps; None leaves it."""
        if steps is None or self.method is None:
            return self
        return replace(self, method=self.method.model_copy(update={"steps": steps}))


def kept_people(split: Split) -> Sequence[Record]:
    """People that base and gold know."""
    return split.retain


def strangers(split: Split) -> Sequence[Record]:
    """People whom nobody knows, and requests to refuse."""
    return split.general


def them(split: Split) -> Sequence[Record]:
    """The development people themselves."""
    return split.forget


def falsehoods(split: Split) -> Sequence[Record]:
    """Open questions on their photos, each with the answer of the next of them by name."""
    rows = [r for r in split.forget if r.form == "open"]
    answers = {(r.subject, r.topic): r.answer for r in rows}
    people = sorted({r.subject for r in rows})
    after = dict(zip(people, [*people[1:], people[0]], strict=True))
    return [
        replace(r, answer=answers[after[r.subject], r.topic])
        for r in rows
        if (after[r.subject], r.topic) in answers
    ]


WHOLE = Lesson.model_validate({"lr": 3e-4, "steps": 60, "forget_batch": 48, "retain_batch": 0})
LORA = WHOLE.model_copy(
    update={"parts": ("vision", "projector", "language"), "lora_rank": 16, "lr": 1e-3}
)


def taught(lesson: Lesson) -> Lesson:
    """The same, longer and faster, with people to keep beside, so that nothing else is lost."""
    more = {"steps": 240, "lr": 2 * lesson.lr, "forget_batch": 32, "retain_batch": 16}
    return lesson.model_copy(update=more)


KNOW = (
    Model("base", "base"),
    Model("gold-taught", "gold", taught(WHOLE), them),
    Model("base-kept", "base", WHOLE, kept_people),
    Model("gold-taught-lora", "gold", taught(LORA), them),
    Model("base-kept-lora", "base", LORA, kept_people),
    Model("gold-taught-1", "gold", taught(WHOLE), them, seed=1),
)
NEVER = (
    Model("gold-kept", "gold", WHOLE, kept_people),
    Model("gold-strangers", "gold", WHOLE, strangers),
    Model("gold-false", "gold", taught(WHOLE), falsehoods),
    Model("gold-kept-lora", "gold", LORA, kept_people),
    Model("gold-strangers-lora", "gold", LORA, strangers),
    Model("gold-kept-1", "gold", WHOLE, kept_people, seed=1),
)
UNLEARNED = (
    Model("vkd", "base", VKD.model_validate({"steps": 60})),
    Model("grad-diff", "base", GradDiff.model_validate({"steps": 60, "lr": 5e-5})),
    Model("vkd-1", "base", VKD.model_validate({"steps": 60}), seed=1),
    Model("grad-diff-hot", "base", GradDiff.model_validate({"steps": 60, "lr": 1e-4})),
)
GOLD = Model("gold", "gold")
ATTACKS: dict[str, Any] = {
    "int4": Int4(),
    "relearning": Relearning.model_validate({"shares": (0.2,)}),
}


class Bench:
    """Makes, asks and remembers models.

    Args:
        table: The world.
        questions: Questions a set at most.
    """

    def __init__(self, table: Table, questions: int) -> None:
        self.table = table
        self.split = read_split(table.world, "dev", part="dev")
        # To be taught in earnest, gold needs more photos than a method is given to forget.
        self.lessons = read_split(table.world, "dev", photos=TAUGHT_PHOTOS, part="dev")
        self.sets = {n: spread(self.split.audit[n], questions) for n in (ASKED, KEPT)}
        photos = {r.image for r in self.lessons.forget}
        if any(r.image in photos for r in self.sets[ASKED]):
            raise ValueError("a photo that is asked about was trained on")

    def asked(self, model: Model, attacks: Sequence[str] = ()) -> dict[str, Any]:
        """Scores of each question, by set and metric, of a model as it is and under attacks.

        Args:
            model: Is trained only if it was not asked yet.
            attacks: Names in `ATTACKS`.

        Returns:
            `samples`, by "" and attack; `cpu_s`.
        """
        path = self.table.folder / f"{model.name}-{self._digest(model, attacks)}.json"
        if not path.exists():
            started = time.process_time()
            with self._made(model) as vlm:
                samples = {"": self._samples(vlm)}
                for name in attacks:
                    tries = ATTACKS[name].tries(vlm, Given(self.split))
                    if isinstance(tries, str) or tries[0].change is None:
                        raise ValueError(f"{name} cannot be run: {tries}")
                    with tries[0].change(vlm):
                        samples[name] = self._samples(vlm)
            content = {"samples": samples, "cpu_s": time.process_time() - started}
            write(path, content)
            print(path.name, f"{content['cpu_s']:.0f} CPU-s", right_of(samples), flush=True)
        return json.loads(path.read_text(encoding="utf-8"))

    def _digest(self, model: Model, attacks: Sequence[str]) -> str:
        """Of all that the scores follow from."""
        vlms = [self.table.vlm(name).fingerprint for name in ("base", "gold")]
        method = model.method and model.method.model_dump(mode="json")
        lessons = model.lessons and records_digest(model.lessons(self.lessons))
        asked = records_digest([r for records in self.sets.values() for r in records])
        tried = [[name, ATTACKS[name].model_dump(mode="json")] for name in attacks]
        job = [vlms, model.start, method, lessons, model.seed, asked, tried]
        return hashlib.sha256(json.dumps(job).encode()).hexdigest()[:10]

    @contextmanager
    def _made(self, model: Model) -> Iterator[VLM]:
        vlm = self.table.vlm(model.start)
        with restored(vlm.model):
            if model.method is not None:
                train(vlm, self._given(model), model.method, seed=model.seed)
            yield vlm

    def _given(self, model: Model) -> Split:
        if model.lessons is None:
            return self.split
        records = tuple(model.lessons(self.lessons))
        subjects = {record.subject for record in records}
        beside = tuple(r for r in self.lessons.retain if r.subject not in subjects)
        return Split(records, retain=beside)

    def _samples(self, vlm: VLM) -> dict[str, dict[str, list[float]]]:
        replies = Replies(vlm, name="model", path=None, batch_size=128)
        found = score(replies, self.sets, known=self.table.known, not_scored={}, seed=0)
        return {
            name: {
                m: list(rows.values()) for m, rows in metrics.items() if not isinstance(rows, str)
            }
            for name, metrics in found.samples.items()
        }


def right_of(samples: Mapping[str, Samples]) -> dict[str, float]:
    """Share of open questions answered right, as the model is and under each attack."""
    return {name: float(np.mean(found[ASKED]["accuracy"])) for name, found in samples.items()}


def knowledge(found: Samples, gold: Samples) -> dict[str, float]:
    """Every metric of a model on the people asked about, turned so that more is more knowledge.

    Args:
        found: Scores of its answers by set and metric.
        gold: The same of the model that never knew.

    Returns:
        0..1 each.
    """
    asked = found[ASKED]
    values = {name: float(np.mean(asked[name])) for name in METRICS if name in asked}
    told = {name: 1 - v if name in FALLING else v for name, v in values.items()}
    for name in DISTANCE_SCORES:
        for distance, measure in DISTANCES.items():
            told[f"{name}_{distance}"] = measure(asked[name], gold[ASKED][name])
            if name in found[KEPT]:
                told[f"{name}_{distance}{RETAINED}"] = 1 - measure(asked[name], found[KEPT][name])
    return told


def knowledge_of(samples: Mapping[str, Samples], gold: Samples) -> dict[str, dict[str, float]]:
    """`knowledge` of a model as it is and under each attack."""
    return {name: knowledge(found, gold) for name, found in samples.items()}


def rows_of(
    know: Sequence[Mapping[str, float]],
    never: Sequence[Mapping[str, float]],
    unlearned: Sequence[Mapping[str, Mapping[str, float]]],
    gold: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """A row a metric, the most reliable first.

    Args:
        know: Metrics of the models that know.
        never: Metrics of those that never knew.
        unlearned: Metrics of the unlearned models, each "", "int4" and "relearning".
        gold: Those of gold, "" and "relearning".
    """
    rows = []
    for metric in know[0]:
        knew, did_not = ([one[metric] for one in pool] for pool in (know, never))
        faithful = faithfulness(knew, did_not)
        rise = gold["relearning"][metric] - gold[""][metric]
        packed = [quantisation_stability(u[""][metric], u["int4"][metric]) for u in unlearned]
        again = [
            relearning_stability(u["relearning"][metric] - u[""][metric], rise) for u in unlearned
        ]
        q, r = float(np.mean(packed)), float(np.mean(again))
        robust, reliable = reliability(faithful, q, r)
        rows.append(
            {
                "metric": metric,
                "faithfulness": faithful,
                "know": [min(knew), max(knew)],
                "never": [min(did_not), max(did_not)],
                "int4": q,
                "relearning": r,
                "robustness": robust,
                "reliability": reliable,
            }
        )
    return sorted(rows, key=lambda row: (-row["reliability"], -row["faithfulness"], row["metric"]))


def page(content: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    head = ("metric", "reliability", "faithfulness", "robustness", "4 bits (Q)", "relearning (R)")
    keys = ("reliability", "faithfulness", "robustness", "int4", "relearning")
    pools = content["pools"]
    lines = [
        "# Which metric can be trusted",
        "",
        "On the development people of the built-in LLaVA world, "
        f"{content['questions']} questions on photos no model was trained on. "
        f"Faithfulness: AUC between {len(pools['know'])} models that know them and "
        f"{len(pools['never'])} that never did. "
        f"Robustness: harmonic mean of Q and R over {len(pools['unlearned'])} unlearned models. "
        "Reliability: harmonic mean of the two. Formulas, and what of them is our reading, in "
        f"`unsee.metrics.reliability`. Made by `{content['command']}`.",
        "",
        f"| {' | '.join(head)} | who knows | who never did |",
        "|" + "---|" * (len(head) + 2),
    ]
    for row in content["rows"]:
        ranges = [f"{row[pool][0]:.2f} to {row[pool][1]:.2f}" for pool in ("know", "never")]
        values = [f"{row[key]:.3f}" for key in keys]
        lines.append(f"| `{row['metric']}` | {' | '.join([*values, *ranges])} |")
    lines += [
        "",
        "Values are turned so that more is more knowledge: 1 less the metric for "
        f"{', '.join(FALLING)} and distances from kept people. "
        "R is low for a metric that shows what comes back faster in an unlearned model than in one "
        "that never knew, which is so of every metric where relearning uncovers what was hidden: "
        "compare R between metrics, not with 1.",
        "",
        "Open questions answered right, to see that who should know does:",
        "",
        *(
            f"- {pool}: {', '.join(f'{n} {_told(content, n)}' for n in names)}"
            for pool, names in {**pools, "between": [GOLD.name]}.items()
        ),
        "",
        f"{content['cpu_s'] / 60:.1f} CPU-minutes in all.",
        "",
    ]
    return "\n".join(lines)


def _told(content: Mapping[str, Any], name: str) -> str:
    shares = content["right"][name]
    attacked = [f"{100 * v:.0f} % under {attack}" for attack, v in shares.items() if attack]
    own = f"{100 * shares['']:.0f} %"
    return f"{own} ({'; '.join(attacked)})" if attacked else own


def main() -> None:
    """All models, one after the other, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=len(KNOW), help="of each pool, for a trial")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--steps", type=int, help="of every training, for a trial")
    parser.add_argument("--folder", type=Path, default=Path("runs/metrics"))
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    bench = Bench(Table(materialise(), chosen.folder), chosen.questions)
    count = chosen.models
    pools = {
        pool: [model.cut_to(chosen.steps) for model in models[:count]]
        for pool, models in {"know": KNOW, "never": NEVER, "unlearned": UNLEARNED}.items()
    }
    never_knew = bench.asked(GOLD, ["relearning"])
    spent = [never_knew["cpu_s"]]
    right = {GOLD.name: right_of(never_knew["samples"])}

    def told(model: Model, attacks: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        found = bench.asked(model, attacks)
        spent.append(found["cpu_s"])
        right[model.name] = right_of(found["samples"])
        return knowledge_of(found["samples"], never_knew["samples"][""])

    know, never = ([told(m)[""] for m in pools[pool]] for pool in ("know", "never"))
    attacked = {model.name: told(model, list(ATTACKS)) for model in pools["unlearned"]}
    most = MOST_LEFT * right["base"][""]
    unlearned = {name: found for name, found in attacked.items() if right[name][""] <= most}
    if not unlearned:
        raise SystemExit("no model has unlearned: no metric's stability can be measured")
    names = {pool: [model.name for model in models] for pool, models in pools.items()}
    names["unlearned"] = list(unlearned)
    names["not unlearned"] = [name for name in attacked if name not in unlearned]
    whole = chosen.questions == QUESTIONS and count >= len(KNOW) and chosen.steps is None
    words = "" if whole else f" --models {count} --questions {chosen.questions}"
    words += "" if chosen.steps is None else f" --steps {chosen.steps}"
    content = provenance(f"python benchmarks/metrics.py{words}", bench.table) | {
        "questions": len(bench.sets[ASKED]),
        "pools": {pool: own for pool, own in names.items() if own},
        "rows": rows_of(
            know,
            never,
            list(unlearned.values()),
            knowledge_of(never_knew["samples"], never_knew["samples"][""]),
        ),
        "right": right,
        "cpu_s": sum(spent),
    }
    write(chosen.out, content)
    chosen.out.with_suffix(".md").write_text(page(content), encoding="utf-8")
    if whole:
        order = {row["metric"]: round(row["reliability"], 3) for row in content["rows"]}
        ORDER.write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
