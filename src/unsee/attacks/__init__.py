"""Ways to bring back what was forgotten: other questions, other photos, other weights."""

from unsee.attacks.protocol import Attack, Detects
from unsee.errors import ConfigError
from unsee.registry import Registry

ATTACKS: Registry = Registry("attack", "unsee.attacks")
ALL = "all"

from unsee.attacks import conversations as conversations  # noqa: E402
from unsee.attacks import depth as depth  # noqa: E402
from unsee.attacks import gate_images as gate_images  # noqa: E402
from unsee.attacks import membership as membership  # noqa: E402
from unsee.attacks import pgd as pgd  # noqa: E402
from unsee.attacks import photos as photos  # noqa: E402
from unsee.attacks import probe as probe  # noqa: E402
from unsee.attacks import prompts as prompts  # noqa: E402
from unsee.attacks import readout as readout  # noqa: E402
from unsee.attacks import relearning as relearning  # noqa: E402
from unsee.attacks import removal as removal  # noqa: E402
from unsee.attacks import typographic as typographic  # noqa: E402
from unsee.attacks import universal as universal  # noqa: E402
from unsee.attacks import weights as weights  # noqa: E402


def attacks_named(names: str) -> dict[str, Attack | Detects]:
    """Attacks at their defaults, by name.

    Args:
        names: "all", or names with commas between them. "all" leaves out costly variants, which are
            `named_only`; they can be named beside it.

    Raises:
        ConfigError: If a name is unknown, with the nearest one, or none is given.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise ConfigError(
            f"--attacks {names!r}: expected {ALL}, or names out of {', '.join(ATTACKS.names())}"
        )
    if ALL in chosen:
        usual = [name for name, cls in ATTACKS.items() if not getattr(cls, "named_only", False)]
        chosen = [*usual, *(name for name in chosen if name != ALL)]
    return {name: ATTACKS.get(name)() for name in dict.fromkeys(chosen)}
