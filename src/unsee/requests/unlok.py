"""A request from a local copy of UnLOK-VQA: some of its questions, the others to be kept.

The benchmark deletes one question at a time and has no splits. `unlok:PATH#12,40` forgets the
questions whose `id` is 12 and 40.

| published | becomes |
|---|---|
| `src`, `pred` of those questions | `forget_seen` |
| `rephrase` of those questions, where it is there | `forget_unseen`: no method is given them |
| `loc`, `loc_ans` of those questions | `forget_visible`: what is to be kept on the same photos |
| `src`, `pred`, `loc`, `loc_ans` of all others | `retain_seen` and `retain_unseen` |

Left out: other questions on a photo of those to forget; the rephrased photos and neighbour photos,
which are attacks and controls without a place in a request. What is kept on the
same photos is kept as the base answers it. There are no strangers: `--general` is to be given.

Patil et al. 2024, https://arxiv.org/abs/2505.01456. Reading the files: `unsee.data.unlok`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from unsee.data.people import Person
from unsee.data.unlok import NAME, Entry, find_photo, photo_homes, read_entries
from unsee.errors import ConfigError, DataError
from unsee.registry import nearest
from unsee.requests.albums import SIDES, Sides
from unsee.requests.benchmarks import Faults


def read_unlok(path: Path, split: str, faults: Faults) -> Sides:
    """The questions named, and all others on other photos.

    Args:
        path: The JSON file or its folder; the photos lie there or in subfolders.
        split: `id` of each question to forget, parted by commas.
        faults: Gets a line for each row that cannot be used.

    Raises:
        ConfigError: If there is no such question.
        DataError: If the file or a photo cannot be used; with the faults of all rows.
    """
    where = f"unlok:{path}"
    entries = read_entries(path, faults.found)
    known = {entry.key for _, entry in entries}
    wanted = [key.strip() for key in split.split(",")]
    for key in wanted:
        if key not in known and not faults.found:
            raise ConfigError(f"{where}#{split}: no question {key!r}; {_nearest(key, known)}")
    forget = [(place, entry) for place, entry in entries if entry.key in wanted]
    taken = {entry.image for _, entry in forget}
    retain = [(place, entry) for place, entry in entries if entry.image not in taken]
    homes = photo_homes(path.parent if path.is_file() else path)
    people: dict[str, Sequence[Person]] = dict.fromkeys(SIDES, ())
    people["forget"] = [
        replace(person, held_out=())
        for one in forget
        for person in _on_photos([one], one[1].subject, homes, faults)
    ]
    images = {entry.image: f"{NAME} photo {entry.image}" for _, entry in retain}
    people["retain"] = [
        person
        for image, name in images.items()
        for person in _on_photos([e for e in retain if e[1].image == image], name, homes, faults)
    ]
    faults.settle()
    left_out = {"rephrased": "rephrased photos and neighbour photos are attacks and controls"}
    if dropped := len(entries) - len(forget) - len(retain):
        left_out["same photo"] = f"{dropped} other questions on a photo of those to forget"
    reworded = any(person.asked_only for person in people["forget"])
    no_words = f"{NAME} has one photo a question, and this file no field rephrase"
    return Sides(
        people,
        source=f"{where}#{split}",
        whole=True,
        left_out=left_out,
        not_scored={
            **({} if reworded else {"forget_unseen": no_words}),
            "forget_text": f"{NAME} asks on photos alone",
            "retain_text": f"{NAME} asks on photos alone",
            "celebrity": f"{NAME} has no people",
            "refusal": f"{NAME} has no requests to refuse",
        },
    )


def _on_photos(
    entries: Sequence[tuple[str, Entry]], name: str, homes: Sequence[Path], faults: Faults
) -> Iterable[Person]:
    """The entries of one photo as one subject; none if the photo cannot be used."""
    place, first = entries[0]
    try:
        photo = find_photo(homes, first.image)
    except DataError as error:
        faults.note(place, error)
        return
    records = [record for _, entry in entries for record in entry.records(photo)]
    others = [record for _, entry in entries for record in entry.asked_only(photo)]
    yield Person(
        name=name,
        slug=first.key,
        photos=(photo,),
        profile={"name": name},
        records=tuple(replace(record, subject=name) for record in records),
        asked_only=tuple(replace(record, subject=name) for record in others),
    )


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return nearest(key, names) if len(names) <= 20 else f"there are {len(names)}"
