"""Whatever a manifest holds, it is read or refused, and nothing is written."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsee.artifacts import load_manifest
from unsee.errors import UnseeError

WHOLE = {
    "format": 1,
    "kind": "weights",
    "base_fingerprint": "0" * 16,
    "base_source": "m",
    "files": {"weights.safetensors": {"bytes": 0, "sha256": "0" * 64}},
    "tensors": {},
    "canary": {},
}
NAMES = st.sampled_from(["", ".", "..", "a\0", "\ud800", "é" * 300, "/etc/passwd", "../x", *WHOLE])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FILES = st.dictionaries(NAMES, VALUES | st.just({"bytes": 0, "sha256": ""}), max_size=2)
CHANGES = st.dictionaries(st.sampled_from([*WHOLE, "stack"]), VALUES, max_size=3)
TABLES = CHANGES | FILES.map(lambda files: {"files": files})
RAW = st.binary() | st.sampled_from([b"[" * 5000, b"9" * 5000, b"null", b"[1]", b""])


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=TABLES.map(lambda more: json.dumps({**WHOLE, **more}).encode()) | RAW)
def test_a_manifest_is_read_or_refused(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    faults = ("",)
    try:
        load_manifest(tmp_path)
    except UnseeError as error:
        faults = error.args
    assert all(isinstance(fault, str) for fault in faults)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == content
