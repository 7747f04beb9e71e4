"""A package beside ours adds a method by declaring it."""

import importlib
import sys

import pytest
from typer.testing import CliRunner

from unsee.cli import app
from unsee.errors import ConfigError
from unsee.methods import METHODS
from unsee.recipe import read_recipe
from unsee.train import train

MODULE = '''
"""A method of another package."""

from unsee.answering import answer_logits
from unsee.finetuning import FineTuned
from unsee.losses import unlikelihood
from unsee.method import Terms


class Gentle(FineTuned):
    """Unlikelihood of forget answers.

    Attributes:
        weight: Of the only term.
    """

    keeps = False
    weight: float = 2.0

    def loss(self, vlm, batch, state):
        """One term."""
        term = unlikelihood(*answer_logits(vlm, batch.forget.batch))
        return Terms({"unlikelihood": self.weight * term}, {})
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Lays a package out as an installer does, and takes it away again."""
    (tmp_path / "gentle_unlearning.py").write_text(MODULE)
    info = tmp_path / "gentle_unlearning-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gentle-unlearning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unsee.methods]\ngentle = gentle_unlearning:Gentle\n")
    monkeypatch.setattr(METHODS, "_table", dict(METHODS._table))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("gentle_unlearning", None)


def test_its_method_is_there_and_is_imported_when_it_is_asked_for(package):
    assert "gentle" in METHODS.names()
    assert "gentle_unlearning" not in sys.modules
    method = METHODS.get("gentle")
    assert method.__module__ == "gentle_unlearning"
    assert dict(METHODS.items())["gentle"] is method


def test_its_settings_are_read_and_refused_like_ours(package):
    given = {"model": "m", "subject": "s", "method": {"name": "gentle"}}
    _, method = read_recipe(None, given, ["method.weight=0.5"])
    assert method.model_dump()["weight"] == 0.5
    with pytest.raises(ConfigError, match="wight: unknown setting; did you mean 'weight'"):
        read_recipe(None, given, ["method.wight=0.5"])
    with pytest.raises(ConfigError, match="unknown method 'gentl'; did you mean 'gentle'"):
        METHODS.get("gentl")


def test_it_trains(package, tiny_vlm, small_split):
    method = METHODS.get("gentle")(steps=2, lr=1e-2, forget_batch=2, checkpoint_every=0)
    result = train(tiny_vlm, small_split, method)
    assert result.changed
    assert [set(terms) for terms in result.terms] == [{"forget.unlikelihood"}] * 2


def test_it_is_listed(package):
    shown = CliRunner().invoke(app, ["list", "methods"])
    assert shown.exit_code == 0
    assert "gentle: Unlikelihood of forget answers.\n" in shown.stdout


def test_it_is_gone_with_the_package():
    assert "gentle" not in METHODS.names()
