import copy
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsee.artifacts import check_run, load_manifest, run_fingerprint
from unsee.artifacts.stack import stack_of
from unsee.errors import ArtifactError

MANIFEST: dict[str, Any] = {
    "format": 1,
    "kind": "weights",
    "base_fingerprint": "0123456789abcdef",
    "base_source": "models/base",
    "stack": [{"fingerprint": "aa", "folder": "runs/one"}],
    "method": {"name": "vkd", "settings": {"steps": 2}},
    "seeds": [0],
    "split": "ff",
    "cost": {"wall_s": 1.5, "trained_parameters": 7, "peak_rss_mb": 3.0, "peak_gpu_mb": None},
    "files": {"weights.safetensors": {"bytes": 4, "sha256": "ab"}},
    "tensors": {"w": {"shape": [2], "dtype": "float32"}},
    "canary": {"dtype": "float32", "distance_to_base": {"image": 0.1}},
}


def written(folder, manifest):
    (folder / "weights.safetensors").write_bytes(b"1234")
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def changed(path, value):
    """The manifest with another value at a dotted path."""
    manifest = copy.deepcopy(MANIFEST)
    table = manifest
    *first, last = path
    for step in first:
        table = table[step]
    table[last] = value
    return manifest


def read(folder):
    manifest = load_manifest(folder)
    check_run(manifest, where=folder / "manifest.json")
    return manifest


def test_a_whole_manifest_is_read(tmp_path):
    assert read(written(tmp_path, MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("format",), True, "expected a manifest with a format number"),
        (("kind",), 3, "kind: Input should be a valid string"),
        (("files",), [], "files: Input should be a valid dictionary"),
        (("files", "weights.safetensors", "bytes"), "4", "files.weights.safetensors.bytes: Input"),
        (("files", "../x"), {"bytes": 1, "sha256": ""}, "expected the name of a file in the run"),
        (("stack",), ["runs/one"], "stack.0: Input should be"),
        (("stack", 0, "fingerprint"), None, "stack.0.fingerprint: Input should be"),
        (("method",), "vkd", "method: Input should be"),
        (("seeds",), [], "seeds: List should have at least 1 item"),
        (("cost",), {}, "cost.wall_s: Field required; cost.trained_parameters: Field required"),
    ],
)
def test_another_type_is_named_in_one_line(tmp_path, path, value, fault):
    with pytest.raises(ArtifactError, match=re.escape(fault)) as caught:
        read(written(tmp_path, changed(path, value)))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "manifest.json"))
    assert "\n" not in message


def test_nesting_without_end_is_damage(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="damaged, not JSON"):
        load_manifest(tmp_path)


def test_a_run_is_known_by_its_files(tmp_path):
    assert run_fingerprint(MANIFEST) == run_fingerprint(changed(("kind",), "other"))
    other = changed(("files", "weights.safetensors", "sha256"), "ac")
    assert run_fingerprint(MANIFEST) != run_fingerprint(other)


def places(table, path=()):
    """Every place in a manifest where something else could be."""
    steps = table.items() if isinstance(table, dict) else enumerate(table)
    for step, value in steps:
        yield (*path, step)
        if isinstance(value, dict | list):
            yield from places(value, (*path, step))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("run")


@settings(
    max_examples=500,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(place=st.sampled_from(list(places(MANIFEST))), value=ANYTHING)
def test_whatever_a_manifest_holds_it_is_read_or_refused(folder, place, value):
    written(folder, changed(place, value))
    with suppress(ArtifactError):
        manifest = read(folder)
        stack_of(manifest)
        run_fingerprint(manifest)
