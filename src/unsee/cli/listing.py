"""`unsee list`: what there is to choose from."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from unsee.cli.session import Debug, Json, print_json, verb
from unsee.errors import ConfigError


@verb
def show(
    kind: Annotated[str, typer.Argument(help="methods, erasers, attacks, metrics or families.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List methods, erasers and attacks with their settings, metrics, or model families.

    Example: unsee list methods
    """
    from unsee.registry import nearest

    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "methods": _methods,
        "erasers": _erasers,
        "attacks": _attacks,
        "metrics": _metrics,
        "families": _families,
    }
    if kind not in kinds:
        raise ConfigError(f"list {kind!r}: nothing of that name; {nearest(kind, list(kinds))}")
    table = kinds[kind]()
    if as_json:
        print_json(table)
        return
    for name, about in table.items():
        typer.echo(f"{name}: {about['about']}")
        for setting, value in about.get("settings", {}).items():
            typer.echo(f"  {setting} = {value!r}")


def _methods() -> dict[str, Any]:
    from unsee.methods import METHODS

    return _settings(METHODS)


def _erasers() -> dict[str, Any]:
    from unsee.erasers import ERASERS

    return _settings(ERASERS)


def _attacks() -> dict[str, Any]:
    from unsee.attacks import ATTACKS

    return _settings(ATTACKS)


def _settings(registry: Any) -> dict[str, Any]:
    return {
        name: {"about": _first_line(cls), "settings": _defaults(cls)}
        for name, cls in registry.items()
    }


def _metrics() -> dict[str, Any]:
    from unsee.report.wording import METRICS

    return {name: {"about": title} for name, title in METRICS.items()}


def _families() -> dict[str, Any]:
    from unsee.models.families import FAMILIES

    return {
        name: {"about": f"tower {layout.vision_tower}, language model {layout.language_model}"}
        for name, layout in FAMILIES.items()
    }


def _first_line(cls: Any) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _defaults(cls: Any) -> dict[str, Any]:
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
    }
