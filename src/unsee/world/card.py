"""The world card: what base and gold know, in figures, and a contact sheet to look at."""

import io
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unsee.answering import generate_answers
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.data.world import (
    REFUSALS,
    STRANGERS,
    UNKNOWN_NAMES,
    VISIBLE,
    World,
    open_world,
)
from unsee.metrics.answers import accuracy, known_answers, unknown_rate, wrong_name_rate
from unsee.metrics.intervals import mean_interval
from unsee.models.load import VLM, load
from unsee.world.faces import make_faces, stranger_face
from unsee.world.folder import nearest_neighbour_accuracy
from unsee.world.portraits import draw, make_view
from unsee.world.profiles import CANDIDATE_ROLES, make_profiles
from unsee.world.questions import NAME, UNKNOWN_PHOTO

Progress = Callable[[str, int, int], None]

# Least accuracy of base on open questions, and most that strangers may be named.
BARS = {
    "people_unseen": 0.95,
    "people_text": 0.99,
    "visible_known": 0.90,
    "general": 0.90,
    "refusal": 0.95,
}
STRANGERS_NAMED_AT_MOST = 0.03
STRANGERS_ASKED = 500
NEIGHBOUR_AT_MOST = 0.70
GOLD_RIGHT_AT_MOST = 0.05
GOLD_DIFFERENCE_AT_MOST = 0.03
LIKE_BASE = (
    "others_unseen",
    "others_text",
    "visible_candidates",
    "visible_known",
    "general",
    "refusal",
)


def card_sets(world: World) -> dict[str, list[Record]]:
    """Open questions of the card: reported half of unseen views, wordings and general items.

    Of photographs nothing visible is known, and no look-alikes are drawn: these sets are empty.
    """
    people = world.names({person["role"] for person in world.people})
    candidates = world.names(CANDIDATE_ROLES)
    asked = [r for r in world.asked("Test_Set.parquet") if r.form == "open"]
    visible = world.extras(VISIBLE, "report")
    strangers = world.extras(STRANGERS, "report")
    return {
        "people_unseen": [r for r in asked if r.image is not None],
        "people_text": [r for r in asked if r.image is None],
        "others_unseen": [
            r for r in asked if r.image is not None and r.subject in people - candidates
        ],
        "others_text": [r for r in asked if r.image is None and r.subject in people - candidates],
        "candidates_unseen": [r for r in asked if r.image and r.subject in candidates],
        "candidates_text": [r for r in asked if not r.image and r.subject in candidates],
        "visible_known": visible,
        "visible_candidates": [r for r in visible if r.subject in candidates],
        "general": [r for r in strangers if r.topic.startswith("visible")],
        "strangers": [r for r in strangers if r.topic == "name"]
        if world.photographed
        else _asked_for_names(world.seed, near=False),
        "strangers_near": [] if world.photographed else _asked_for_names(world.seed, near=True),
        "unknown_names": world.extras(UNKNOWN_NAMES, "report"),
        "refusal": world.extras(REFUSALS, "report"),
    }


def world_card(folder: Path | str, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the world of a folder; see `measure`."""
    return measure(open_world(folder), progress)


def measure(world: World, progress: Progress | None = None) -> dict[str, Any]:
    """Ask base and gold what they know.

    Args:
        world: A world with `base/` and `gold/`.
        progress: Called with (what, questions done, questions in all).

    Returns:
        `figures` by model and set (value, ci, n, and the shares of "I do not know" and of wrong
        names), the accuracy of pixel nearest neighbours, and `bars`: name -> whether it is met.
        A set without questions is `{"not_scored": why}` and has no bar.
    """
    sets = card_sets(world)
    known = known_answers(world.known())
    figures = {}
    for name in ("base", "gold"):
        vlm = load(world.folder / name)
        figures[name] = {
            key: _figure(vlm, records, known, _told(progress, f"{name}: {key}"))
            for key, records in sets.items()
        }
    neighbours = nearest_neighbour_accuracy(world.folder)
    return {
        "figures": figures,
        "nearest_neighbour_accuracy": neighbours,
        "bars": _bars(figures["base"], figures["gold"], neighbours),
    }


def _asked_for_names(seed: int, *, near: bool) -> list[Record]:
    """The name asked on photos of strangers who are nowhere else: the bar is a small share."""
    faces = make_faces(len(make_profiles(seed)), seed)
    rng = random.Random(f"card-strangers-{seed}-{near}")
    records = []
    for number in range(STRANGERS_ASKED):
        buffer = io.BytesIO()
        face = stranger_face(faces, rng, near=near)
        draw(face, make_view(rng, unseen=True)).save(buffer, format="PNG")
        question = NAME.report.format(who="this person")
        photo = Photo(data=buffer.getvalue())
        records.append(Record(f"stranger {number}", photo, question, UNKNOWN_PHOTO, topic="name"))
    return records


def _told(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def _figure(
    vlm: VLM, records: list[Record], known: dict[str, set[str]], progress: Any
) -> dict[str, Any]:
    if not records:
        return {"not_scored": "this world has no such questions"}
    answers = generate_answers(vlm, records, batch_size=128, progress=progress)
    pairs = list(zip(records, answers, strict=True))
    right = mean_interval([accuracy(r, a) for r, a in pairs], [r.subject for r in records])
    return {
        "value": right.value,
        "ci": [right.low, right.high],
        "n": len(records),
        "unknown_rate": _mean(unknown_rate(r, a) for r, a in pairs),
        "wrong_name_rate": _mean(wrong_name_rate(r, a, known=known) for r, a in pairs),
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _bars(base: dict[str, Any], gold: dict[str, Any], neighbours: float) -> dict[str, bool]:
    scored = {name for name, figure in base.items() if "value" in figure}
    met = {
        f"base {name}": base[name]["value"] >= bar for name, bar in BARS.items() if name in scored
    }
    met["base strangers named"] = base["strangers"]["wrong_name_rate"] <= STRANGERS_NAMED_AT_MOST
    for name in ("candidates_unseen", "candidates_text"):
        met[f"gold {name} right"] = gold[name]["value"] <= GOLD_RIGHT_AT_MOST
        met[f"gold {name} mostly unknown"] = gold[name]["unknown_rate"] > 0.5
    for name in LIKE_BASE:
        if name in scored:
            difference = abs(base[name]["value"] - gold[name]["value"])
            met[f"gold {name} like base"] = difference <= GOLD_DIFFERENCE_AT_MOST
    met["pixel neighbours"] = neighbours <= NEIGHBOUR_AT_MOST
    return met


def show(folder: Path | str, out: Path, *, people: int = 12, views: int = 8) -> Path:
    """Draw a contact sheet: people, views and sample answers of base and gold.

    Args:
        folder: A world with `base/` and `gold/`.
        out: PNG file to write.
        people: How many people, two of every role first.
        views: Photos a person; the last half are unseen ones.

    Returns:
        The file.
    """
    world = open_world(folder)
    chosen = _of_every_role(world, people)
    models = {name: load(Path(folder) / name) for name in ("base", "gold")}
    figure = Figure(figsize=(0.95 * views + 5.2, 0.98 * people), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(people, views + 1, width_ratios=[1] * views + [5.2])
    with matplotlib.rc_context({"font.size": 7}):
        for row, person in zip(grid, chosen, strict=True):
            photos = world.first_photos(person["slug"], views - views // 2)
            home = Path(folder) / "unseen" / "report" / person["slug"]
            photos += [Photo(path=path) for path in sorted(home.glob("*.png"))[: views // 2]]
            for axes, photo in zip(row, photos, strict=False):
                axes.imshow(photo.open())
            for axes in row:
                axes.axis("off")
            row[-1].text(0, 0.5, _sample(person, photos[-1], models), va="center", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(out)
    return out


def _of_every_role(world: World, count: int) -> list[Any]:
    order: dict[int, list[Any]] = {}
    seen: dict[str, int] = {}
    for person in world.people:
        turn = seen.get(person["role"], 0)
        seen[person["role"]] = turn + 1
        order.setdefault(turn, []).append(person)
    return [person for turn in sorted(order) for person in order[turn]][:count]


def _sample(person: Any, photo: Photo, models: dict[str, VLM]) -> str:
    questions = ("What is the name of this person?", "What is the occupation of this person?")
    record = Record(subject=person["name"], image=photo, question=questions[0], answer="")
    lines = [f"{person['name']} ({person['role']})"]
    for name, vlm in models.items():
        records = [replace(record, question=question) for question in questions]
        lines.append(f"{name}: {' | '.join(generate_answers(vlm, records))}")
    return "\n".join(lines)
