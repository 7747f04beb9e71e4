"""Linear probes: is a person, or a fact about one, still told by the model's inner states?

Alain and Bengio 2016, https://arxiv.org/abs/1610.01644; with labels drawn at random as the control,
after Hewitt and Liang 2019, https://arxiv.org/abs/1909.03368. Open-MMUnlearning
(https://arxiv.org/abs/2610.10358) lists probing among its tests. Ours are fitted on states that the
model under attack itself has of photos with known answers, and tested on other photos. Any model
that sees well tells faces apart, one that never knew them too: only what lies above gold counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Group, Reading, Try
from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.metrics.answers import is_unknown, normalise
from unsee.models.load import VLM
from unsee.settings import Settings
from unsee.states import last_states
from unsee.teacher import visual_features

VISUAL = ("vision", "projector")
_PHOTOS_A_PASS = 32

# A place where states are read -> those of some records, (record, width).
States = Mapping[str, NDArray[np.float64]]


@ATTACKS.register("probe")
class Probe(Settings):
    """Ridge classifiers from tower, projector and language states to the answers of each topic.

    Attributes:
        depths: Of the language layers whose states are read, as shares of the way from the first
            layer to the last, a try each beside the tower's and the projector's.
        photos: Photos a person that the probe is fitted on.
        penalties: Of the ridge, on standardised states; chosen by leaving out one record at a time.
    """

    group: ClassVar[Group] = "readout"

    depths: tuple[float, ...] = (0.5, 1.0)
    photos: int = Field(5, ge=1)
    penalties: tuple[float, ...] = Field((1.0, 10.0, 100.0, 1000.0, 10000.0), min_length=1)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a place."""
        known = self._known(given.split)
        if all(len({normalise(r.answer) for r in own}) < 2 for own in known.values()):
            return "no kind of question on photos has two known answers"
        count = len(vlm.layout.language_layer_paths(vlm.model))
        layers = {f"language {d:.0%}": max(0, round(d * count) - 1) for d in self.depths}
        taken = _Taken(vlm, [record for own in known.values() for record in own], layers)

        def reader(place: str) -> Callable[[VLM, Sequence[Record]], Reading]:
            return lambda vlm, records: self._probed(
                taken.known, taken.of_known[place], records, taken.of(records)[place], given.seed
            )

        return [Try(place, read=reader(place)) for place in (*VISUAL, *layers)]

    def _known(self, split: Split) -> dict[str, list[Record]]:
        """Open questions on a few photos a person, by the topics that are to be forgotten."""
        photos: dict[str, dict[Photo, None]] = {}
        known: dict[str, list[Record]] = {r.topic: [] for r in split.forget if r.topic}
        for record in (*split.forget, *split.retain):
            if record.image is None or record.form != "open" or is_unknown(record.answer):
                continue
            own = photos.setdefault(record.subject, {})
            if len(own) < self.photos:
                own.setdefault(record.image)
            if record.image in own and record.topic in known:
                known[record.topic].append(record)
        return known

    def _probed(
        self,
        known: Sequence[Record],
        states: NDArray[np.float64],
        records: Sequence[Record],
        theirs: NDArray[np.float64],
        seed: int,
    ) -> Reading:
        success = np.full(len(records), np.nan)
        drawn = np.full(len(records), np.nan)
        rng = np.random.default_rng(seed)
        for topic in sorted({record.topic for record in known}):
            taught = [row for row, record in enumerate(known) if record.topic == topic]
            rows = [
                row
                for row, record in enumerate(records)
                if record.topic == topic and record.image is not None
            ]
            labels = np.array([normalise(known[row].answer) for row in taught])
            if not rows or len(set(labels)) < 2:
                continue
            right = np.array([normalise(records[row].answer) for row in rows])
            for answers, found in ((labels, success), (rng.permutation(labels), drawn)):
                told = predicted(states[taught], answers, theirs[rows], self.penalties)
                found[rows] = told == right
        control = drawn[~np.isnan(drawn)]
        return Reading(success, {"random_labels": float(control.mean())} if len(control) else {})


def predicted(
    states: NDArray[np.float64],
    labels: NDArray[Any],
    others: NDArray[np.float64],
    penalties: Sequence[float],
) -> NDArray[Any]:
    """Labels of some states, as a linear probe on others tells them.

    Each class weighs alike, however many states it has.

    Args:
        states: What the probe is fitted on, (record, width).
        labels: Their labels, of at least two kinds, (record,).
        others: What it is asked about, (other, width).
        penalties: Of the ridge; the best on records left out is taken.

    Returns:
        A label each, (other,).
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(
        StandardScaler(), RidgeClassifierCV(alphas=list(penalties), class_weight="balanced")
    )
    return probe.fit(states, labels).predict(others)


@dataclass
class _Taken:
    """States of one model at every place, each taken once."""

    vlm: VLM
    known: Sequence[Record]
    layers: Mapping[str, int]
    kept: list[tuple[Sequence[Record], States]] = field(default_factory=list)

    @property
    def of_known(self) -> States:
        """Of the photos with known answers."""
        return self.of(self.known)

    def of(self, records: Sequence[Record]) -> States:
        """Of some records; 0 where one has no photo."""
        for taken, states in self.kept:
            if taken is records:
                return states
        states = self._taken(records)
        self.kept.append((records, states))
        return states

    def _taken(self, records: Sequence[Record]) -> States:
        shown = [row for row, record in enumerate(records) if record.image is not None]
        if not shown:
            return {place: np.zeros((len(records), 0)) for place in (*VISUAL, *self.layers)}
        asked = [records[row] for row in shown]
        places = self._visual(asked)
        states = last_states(self.vlm, asked, list(self.layers.values()), at="output")
        for number, name in enumerate(self.layers):
            places[name] = states[:, number].double().cpu().numpy()
        whole = {name: np.zeros((len(records), own.shape[1])) for name, own in places.items()}
        for name, own in places.items():
            whole[name][shown] = own
        return whole

    def _visual(self, records: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
        """Mean patch of each record's photo behind the tower and behind the projector."""
        vlm = self.vlm
        last = vlm.layout.used_vision_blocks(vlm.model) - 1
        photos = {record.image: record for record in records}
        rows = {photo: row for row, photo in enumerate(photos)}
        seen: dict[str, list[Tensor]] = {place: [] for place in VISUAL}
        shown = list(photos.values())
        for start in range(0, len(shown), _PHOTOS_A_PASS):
            part = shown[start : start + _PHOTOS_A_PASS]
            batch = encode(vlm, part, answers=False, side="left").to(vlm.device)
            with torch.inference_mode():
                for place, feature in zip(VISUAL, (f"vision[{last}]", "projector"), strict=True):
                    features = visual_features(vlm, batch, feature, logits=False).features
                    seen[place].append(features.float().mean(1).cpu())
        chosen = [rows[record.image] for record in records]
        return {place: torch.cat(parts).double().numpy()[chosen] for place, parts in seen.items()}
