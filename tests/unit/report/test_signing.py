"""Keys, signatures, and whose they are."""

import shutil
import stat
import subprocess

import pytest
from typer.testing import CliRunner

from unsee.audit.verifying import verify
from unsee.cli import app
from unsee.errors import ConfigError
from unsee.report import evidence, signing
from unsee.report.evidence import Run, chained

LACKING = (
    "signatures need the package cryptography, which is not installed; install it with: "
    "pip install cryptography"
)


@pytest.fixture
def library():
    return pytest.importorskip("cryptography", reason="signatures need the package cryptography")


@pytest.fixture
def chain():
    run = Run(
        salt="0" * 64,
        created="2026-01-01T00:00:00+00:00",
        versions={},
        device="cpu",
        seed=0,
        models={},
        artifacts=[],
        data="0" * 16,
    )
    return chained([run, run.model_copy(update={"seed": 1})])


def outcome(folder, key=None):
    checks, _ = verify(folder, key=key)
    return next((c.outcome, c.said) for c in checks if c.what == "signature")


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(signing, "import_module", missing)
    (tmp_path / "key").write_text("x")
    for words in (
        ["verify", "--new-key", tmp_path / "new"],
        ["verify", tmp_path, "--key", tmp_path / "key"],
        ["audit", "no/such/model", "--subject", "world:A", "--sign", tmp_path / "key"],
    ):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"unsee: {LACKING}\n"
    assert not (tmp_path / "new").exists()


def test_without_the_package_a_signature_is_not_checked(chain, monkeypatch, tmp_path):
    signature = evidence.Signature(public_key="0" * 64, value="0" * 128)
    evidence.save(evidence.Evidence(chain.links, signature), tmp_path)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(signing, "import_module", missing)
    assert outcome(tmp_path) == ("not checked", LACKING)


def test_a_new_pair_signs_and_is_refused_over_another(library, chain, tmp_path):
    public = signing.new_key(tmp_path / "keys" / "mine.pem")
    secret = tmp_path / "keys" / "mine.pem"
    assert public == tmp_path / "keys" / "mine.pem.pub"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match=r"mine\.pem: is there already, and a key that is lost"):
        signing.new_key(secret)

    evidence.save(signing.signed(chain, signing.read_private(secret)), tmp_path)
    name = signing.key_name(signing.read_public(public))
    assert outcome(tmp_path, public) == ("ok", f"of key {name}")
    assert outcome(tmp_path) == (
        "not checked",
        f"of key {name}; give --key to say whose it should be",
    )


def test_another_key_and_none(library, chain, tmp_path):
    mine = signing.new_key(tmp_path / "mine")
    other = signing.new_key(tmp_path / "other")
    names = [signing.key_name(signing.read_public(key)) for key in (mine, other)]
    evidence.save(signing.signed(chain, signing.read_private(tmp_path / "mine")), tmp_path)
    assert outcome(tmp_path, other) == (
        "failed",
        f"of another key: {names[0]}, expected {names[1]}",
    )
    evidence.save(chain, tmp_path)
    assert outcome(tmp_path, mine) == ("failed", f"there is none; expected key {names[0]}")


def test_a_signature_is_of_these_entries_alone(library, chain, tmp_path):
    signing.new_key(tmp_path / "key")
    signed = signing.signed(chain, signing.read_private(tmp_path / "key"))
    assert signed.signature is not None
    other = chained([link.entry for link in reversed(chain.links)])
    for value in (signed.signature.value[::-1], "0" * 128):
        moved = evidence.Signature(public_key=signed.signature.public_key, value=value)
        evidence.save(evidence.Evidence(chain.links, moved), tmp_path)
        assert outcome(tmp_path)[0] == "failed"
    evidence.save(evidence.Evidence(other.links, signed.signature), tmp_path)
    said = outcome(tmp_path, tmp_path / "key.pub")
    assert said[0] == "failed"
    assert said[1].endswith(" over these entries")


def test_files_that_are_no_keys(library, tmp_path):
    signing.new_key(tmp_path / "key")
    (tmp_path / "text").write_text("hello")
    no_private = "expected an Ed25519 private key in PEM without a passphrase, got something else"
    no_public = "expected an Ed25519 public key in PEM without a passphrase, got something else"
    for read, name, message in (
        (signing.read_private, "text", no_private),
        (signing.read_private, "key.pub", no_private),
        (signing.read_public, "key", no_public),
        (signing.read_private, "gone", "expected a private key, got No such file or directory"),
        (signing.read_public, "gone", "expected a public key, got No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=rf"{name}: {message}; make a pair with 'unsee ver"):
            read(tmp_path / name)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_keys_of_openssl_and_for_openssl(library, chain, tmp_path):
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "theirs")
    openssl("pkey", "-in", tmp_path / "theirs", "-pubout", "-out", tmp_path / "theirs.pub")
    evidence.save(signing.signed(chain, signing.read_private(tmp_path / "theirs")), tmp_path)
    assert outcome(tmp_path, tmp_path / "theirs.pub")[0] == "ok"
    openssl("genrsa", "-out", tmp_path / "rsa", "2048")
    with pytest.raises(ConfigError, match="expected an Ed25519 private key in PEM"):
        signing.read_private(tmp_path / "rsa")
    public = signing.new_key(tmp_path / "ours")
    openssl("pkey", "-in", tmp_path / "ours", "-pubout", "-out", tmp_path / "again.pub")
    assert (tmp_path / "again.pub").read_bytes() == public.read_bytes()


def test_the_command_makes_a_pair_and_shows_it(library, tmp_path):
    result = CliRunner().invoke(app, ["verify", "--new-key", str(tmp_path / "mine.pem")])
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"{tmp_path}/mine.pem: private key, for unsee audit --sign; keep it to yourself\n"
        f"{tmp_path}/mine.pem.pub: public key, for unsee verify --key\n"
    )
