"""Who of a people folder plays which part: dealt by seed, or said in `roles.json`."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from unsee.registry import nearest
from unsee.world.profiles import DRAWS, ROLES

ROLES_FILE = "roles.json"


def shares(count: int) -> dict[str, int]:
    """How many of `count` people play each part: 1/8, 3 x 1/12, 1/8; the rest is to be kept."""
    sizes = {"celebrity": count // 8} | {draw: count // 12 for draw in DRAWS} | {"dev": count // 8}
    return {"retain": count - sum(sizes.values())} | sizes


def deal_roles(slugs: Sequence[str], said: Mapping[str, str], seed: int) -> dict[str, str]:
    """A role for everybody.

    Args:
        slugs: Everybody.
        said: Roles that are fixed; the others get what is then left of each share.
        seed: Seeds the deal.
    """
    taken = Counter(said.values())
    sizes = shares(len(slugs))
    left = [
        role
        for role in ROLES
        for _ in range(max(0, sizes[role] - taken[role]) if role != "retain" else 0)
    ]
    others = [slug for slug in slugs if slug not in said]
    random.Random(f"roles-{seed}").shuffle(others)
    dealt = zip_longest(others, left[: len(others)], fillvalue="retain")
    roles = {**said, **dict(dealt)}
    return {slug: roles[slug] for slug in slugs}


def read_roles(path: Path, slugs: Sequence[str], faults: list[str]) -> dict[str, str]:
    """Roles that a file fixes, by folder; a missing file fixes none.

    Args:
        path: A JSON object of folder names and roles.
        slugs: Folders there are.
        faults: Gets a line for each fault of the file.
    """
    if not path.is_file():
        return {}
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        faults.append(f"{path}:{error.lineno}: expected JSON, got {error.msg}; correct the line")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: expected UTF-8 text, got {error}; save it again as UTF-8")
        return {}
    if not isinstance(pairs, _Pairs) or not pairs:
        got = "an empty object" if isinstance(pairs, _Pairs) else repr(pairs)
        faults.append(
            f"{path}: expected an object of folders and roles, got {got}; write "
            f'{{"{slugs[0]}": "retain", ...}} or remove the file'
        )
        return {}
    wrong = [f"{path}: {fault}" for fault in _entry_faults(pairs, slugs)]
    faults += wrong
    return {} if wrong else dict(pairs)


def _entry_faults(pairs: "_Pairs", slugs: Sequence[str]) -> Iterator[str]:
    for slug, count in Counter(slug for slug, _ in pairs).items():
        if count > 1:
            yield f"{slug}: expected one role, got {count}; keep one"
    for slug, role in pairs:
        if slug not in slugs:
            yield f"{slug!r}: no such folder; {nearest(slug, list(slugs))}"
        if not isinstance(role, str):
            yield f"{slug}: expected a role, got {role!r}; write it in quotes"
        elif role not in ROLES:
            yield f"{slug}: unknown role {role!r}; {nearest(role, list(ROLES))}"


class _Pairs(list[tuple[str, Any]]):
    """Entries of an object as they stand, a folder named twice included."""


def missing_roles(roles: Mapping[str, str], path: Path) -> list[str]:
    """A line for every part that `roles.json` leaves to nobody."""
    return [
        f"{path}: expected at least one person with role {role!r}, got none; give it to somebody"
        for role in ROLES
        if role not in roles.values()
    ]
