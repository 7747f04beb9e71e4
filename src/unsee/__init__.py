"""Make a vision-language model forget people, and measure what is left.

Public names are loaded on first use, so that `import unsee` and `unsee --help` are quick.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsee.attacks import ATTACKS
    from unsee.audit import audit
    from unsee.data.images import Photo
    from unsee.data.records import Record, Split
    from unsee.erasers import ERASERS
    from unsee.erasers.protocol import erased
    from unsee.errors import ArtifactError, ConfigError, DataError, LayoutError, UnseeError
    from unsee.export import export
    from unsee.forget import forget
    from unsee.methods import METHODS
    from unsee.models.families import FAMILIES
    from unsee.models.load import VLM, load

__all__ = [
    "ATTACKS",
    "ERASERS",
    "FAMILIES",
    "METHODS",
    "VLM",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "LayoutError",
    "Photo",
    "Record",
    "Split",
    "UnseeError",
    "audit",
    "erased",
    "export",
    "forget",
    "load",
]

__version__ = version("unsee")

_HOMES = {
    "ATTACKS": "unsee.attacks",
    "ERASERS": "unsee.erasers",
    "FAMILIES": "unsee.models.families",
    "METHODS": "unsee.methods",
    "VLM": "unsee.models.load",
    "ArtifactError": "unsee.errors",
    "ConfigError": "unsee.errors",
    "DataError": "unsee.errors",
    "LayoutError": "unsee.errors",
    "Photo": "unsee.data.images",
    "Record": "unsee.data.records",
    "Split": "unsee.data.records",
    "UnseeError": "unsee.errors",
    "audit": "unsee.audit",
    "erased": "unsee.erasers.protocol",
    "export": "unsee.export",
    "forget": "unsee.forget",
    "load": "unsee.models.load",
}


class _Package(ModuleType):
    """This package, in which a public function keeps its name.

    Importing the module `unsee.forget` from anywhere would put it in place of the function
    `unsee.forget`, and a call would fail depending on what was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unsee' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
