"""What the manifests of several runs come to."""

import pytest

from unsee.audit.runs import method_used


def manifest(kind, name):
    return {"kind": kind, "method": {"name": name, "settings": {}}}


WEIGHTS, ERASER = manifest("weights", "vkd"), manifest("eraser", "mllmeraser")


@pytest.mark.parametrize(
    ("manifests", "name", "kind"),
    [
        ([], None, "none"),
        ([WEIGHTS], "vkd", "weights"),
        ([ERASER], "mllmeraser", "eraser"),
        ([WEIGHTS, ERASER], "mllmeraser", "eraser"),
        ([ERASER, WEIGHTS], "vkd", "eraser"),
    ],
)
def test_an_eraser_among_the_runs_makes_the_whole_one(manifests, name, kind):
    used = method_used(manifests, changed=bool(manifests))
    assert (used.name, used.kind) == (name, kind)


def test_a_model_that_somebody_else_changed():
    assert method_used([], changed=True).kind == "weights"
