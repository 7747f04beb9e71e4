import subprocess
import sys
from importlib.metadata import version
from types import ModuleType

import pytest

import unsee


def run_python(code):
    """Standard output of a Python process that has imported nothing yet."""
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def test_importing_the_package_loads_neither_torch_nor_transformers():
    loaded = run_python(
        "import sys, unsee; unsee.__version__, dir(unsee), unsee.UnseeError;"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("name", unsee.__all__)
def test_every_public_name_is_there(name):
    assert getattr(unsee, name) is not None
    assert name in dir(unsee)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="module 'unsee' has no attribute 'remember'"):
        _ = unsee.remember  # pyright: ignore[reportAttributeAccessIssue]


def test_the_version_is_that_of_the_installed_package():
    assert unsee.__version__ == version("unsee")


def test_a_module_does_not_hide_the_function_of_its_name(monkeypatch):
    """The import system binds a submodule to its package after loading it."""
    monkeypatch.delitem(unsee.__dict__, "forget", raising=False)
    module = ModuleType("unsee.forget")
    module.__dict__["forget"] = function = object()
    unsee.forget = module  # pyright: ignore[reportAttributeAccessIssue]
    assert unsee.__dict__["forget"] is function
