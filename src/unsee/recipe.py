"""A whole run as one table: model, people, method, seeds and folder."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from unsee.artifacts import load_manifest
from unsee.erasers import ERASERS
from unsee.errors import ConfigError
from unsee.methods import METHODS
from unsee.registry import nearest
from unsee.requests import Scope
from unsee.settings import Settings, overrides, read_toml, resolve

DEFAULT_METHOD = "vkd"
_SOURCES = ("subject", "request", "dataset")


class Recipe(Settings):
    """What one run of `unsee forget` does.

    Attributes:
        model: Folder, hub name, or `world:llava`.
        request: JSON lines that say who is on which photo, instead of `subject`.
        dataset: A benchmark's split, such as `mllmu:PATH#forget_10`, instead of `subject`.
        subject: People folder of those to forget, or `world:A`, `world:B`, `world:C`, `world:dev`
            or `world:ABC`.
        retain: People folder, or loose photos, of those to keep; not for a world.
        general: Photos of strangers to keep; not for a world.
        strangers: Photos of other strangers to compare with.
        scope: "visual" leaves answers to text-only questions alone; "both" does not.
        photos: Photos a person given to the method; for a world only.
        holdout: Share of each person's photos that is only audited; for folders only.
        unreadable: Most rows of a `dataset` that are left out, counted and listed, because their
            photo does not decode.
        part: Half of a world's held-out items that is audited; "dev" serves choices.
        seeds: A run each.
        out: Run folder; with several seeds, `seed-0` and so on in it.
        artifacts: Runs of earlier requests that are put on the model first, in this order; the
            new run is made on top of them.
        method: `name` of a method or an eraser, and its settings.
    """

    model: str
    request: str | None = None
    dataset: str | None = None
    subject: str | None = Field(None, validate_default=True)
    retain: str | None = None
    general: str | None = None
    strangers: str | None = None
    scope: Scope = "visual"
    photos: int = Field(5, ge=1, le=60)
    holdout: float = Field(0.25, ge=0, le=0.5)
    unreadable: int = Field(0, ge=0)
    part: Literal["report", "dev"] = "report"
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    out: str = "runs/forget"
    artifacts: tuple[str, ...] = ()
    method: dict[str, Any] = Field(default_factory=lambda: {"name": DEFAULT_METHOD})

    @field_validator("subject")
    @classmethod
    def _one_source(cls, subject: str | None, info: Any) -> str | None:
        """Beside the faults of other fields, not after them: hence no check of the whole model."""
        given = {"subject": subject, **{name: info.data.get(name) for name in _SOURCES[1:]}}
        named = [f"--{name}" for name in _SOURCES if given[name] is not None]
        if not named:
            raise ValueError("missing; give --subject, --request or --dataset")
        if len(named) > 1:
            raise ValueError(
                f"expected --subject, --request or --dataset, got {' and '.join(named)}; give one"
            )
        return subject

    def folder(self, seed: int) -> Path:
        """Where the run with this seed goes."""
        out = Path(self.out)
        return out if len(self.seeds) == 1 else out / f"seed-{seed}"


def read_recipe(
    path: Path | None,
    given: Mapping[str, Any],
    assignments: Sequence[str] = (),
) -> tuple[Recipe, Settings]:
    """The recipe of a run and the settings of its method, with all faults of either at once.

    Args:
        path: A TOML file; None for none.
        given: Values from the command line, which win over the file; None where not given.
        assignments: `name=value` of `--set`, which win over both.

    Returns:
        The recipe, whose method table holds every setting, and the method.

    Raises:
        ConfigError: If a name is unknown, a value does not fit, or the method is unknown.
    """
    table = read_toml(path) if path is not None else {}
    table = _merged(table, {name: value for name, value in given.items() if value is not None})
    table = _merged(table, overrides(assignments))
    where = str(path) if path is not None else ""
    recipe = resolve(Recipe, table, where=where)
    settings = dict(recipe.method)
    name = settings.pop("name", DEFAULT_METHOD)
    if not isinstance(name, str):
        raise ConfigError(f"{_prefix(where)}method.name: expected text, got {name!r}")
    method = resolve(component(name), settings, where=f"{_prefix(where)}method {name}")
    resolved = {"name": name, **method.model_dump(mode="json")}
    return recipe.model_copy(update={"method": resolved}), method


def recipe_of_audit(options: Mapping[str, Any]) -> Recipe:
    """Whom an audit asks about: as its options say, and else as its last run was asked for.

    A run that was given other photos than usual is so never asked about these as unseen ones.

    Args:
        options: Of `unsee audit`, None where not given.

    Raises:
        ArtifactError: If the run is incomplete or damaged.
        ConfigError: If a value does not fit.
    """
    table: dict[str, Any] = {}
    if options["artifact"]:
        made = load_manifest(options["artifact"][-1]).get("request")
        made = made if isinstance(made, dict) else {}
        table = {name: made[name] for name in ("scope", "holdout", "part") if name in made}
        if isinstance(made.get("unreadable"), list):
            table["unreadable"] = len(made["unreadable"])
        if "draw" in made:
            table["photos"] = made.get("photos_per_person")
    names = ("subject", "request", "dataset", "retain", "general", "strangers")
    names += ("scope", "photos", "holdout")
    table |= {name: options[name] for name in names if options[name] is not None}
    return resolve(Recipe, {"model": options["base"] or options["model"], **table})


def component(name: str) -> type[Settings]:
    """The settings of a method or an eraser.

    Raises:
        ConfigError: If there is none of that name.
    """
    names = sorted({*METHODS.names(), *ERASERS.names()})
    if name not in names:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, names)}")
    return (ERASERS if name in ERASERS.names() else METHODS).get(name)


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; `high` wins."""
    merged = copy.deepcopy(dict(low))
    for name, value in high.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged
