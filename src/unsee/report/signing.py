"""Ed25519 signatures over evidence; keys in the PEM files that openssl reads and writes.

openssl genpkey -algorithm ed25519 -out key.pem
openssl pkey -in key.pem -pubout -out key.pem.pub
"""

import hashlib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unsee.artifacts.files import atomic_write_bytes
from unsee.errors import ConfigError
from unsee.report.evidence import Evidence, Signature

PUBLIC_SUFFIX = ".pub"
# So that a signature over evidence is none over anything else.
_CONTEXT = b"unsee evidence\n"


@runtime_checkable
class PrivateKey(Protocol):
    """What is needed of an Ed25519 private key here."""

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes."""
        ...

    def public_key(self) -> Any:
        """The key that others check with."""
        ...


def new_key(path: Path) -> Path:
    """Write a new private key, for its owner's eyes alone, and its public key beside it.

    Args:
        path: Of the private key; the public one gets `.pub` behind it.

    Returns:
        The file of the public key.

    Raises:
        ConfigError: If a file is there already, or `cryptography` is not installed.
    """
    ed25519, serialization = _library()
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    for file in (path, public):
        if file.exists():
            raise ConfigError(
                f"{file}: is there already, and a key that is lost cannot be made again; give "
                "another file"
            )
    key = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, secret)
    atomic_write_bytes(public, shown)
    return public


def read_private(path: Path) -> PrivateKey:
    """A private key that signs.

    Raises:
        ConfigError: If the file is none, or `cryptography` is not installed.
    """
    ed25519, serialization = _library()
    return _read(
        path,
        lambda content: serialization.load_pem_private_key(content, None),
        ed25519.Ed25519PrivateKey,
        "private",
    )


def read_public(path: Path) -> str:
    """A public key, 32 bytes in hexadecimal.

    Raises:
        ConfigError: If the file is none, or `cryptography` is not installed.
    """
    ed25519, serialization = _library()
    key = _read(path, serialization.load_pem_public_key, ed25519.Ed25519PublicKey, "public")
    return _raw(key)


def signed(evidence: Evidence, key: PrivateKey) -> Evidence:
    """The evidence with a signature over its last hash."""
    signature = Signature(
        public_key=_raw(key.public_key()), value=key.sign(_message(evidence)).hex()
    )
    return replace(evidence, signature=signature)


def holds(evidence: Evidence) -> bool:
    """Whether the signature is of the key that it names, over the last hash.

    Raises:
        ConfigError: If `cryptography` is not installed.
    """
    ed25519, _ = _library()
    signature = evidence.signature
    if signature is None:
        return False
    invalid = import_module("cryptography.exceptions").InvalidSignature
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key))
        key.verify(bytes.fromhex(signature.value), _message(evidence))
    except (invalid, ValueError):
        return False
    return True


def key_name(public_key: str) -> str:
    """A short name of a public key: 16 digits of its SHA-256."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]


def _message(evidence: Evidence) -> bytes:
    return _CONTEXT + evidence.head.encode()


def _raw(public_key: Any) -> str:
    _, serialization = _library()
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()


def _read(path: Path, load: Any, kind: type, which: str) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a {which} key, got {error.strerror}; make a pair with "
            "'unsee verify --new-key FILE'"
        ) from error
    try:
        key = load(content)
    # ValueError: no PEM, or another kind; TypeError: a passphrase is needed.
    except (ValueError, TypeError) as error:
        raise _no_key(path, which) from error
    if not isinstance(key, kind):
        raise _no_key(path, which)
    return key


def _no_key(path: Path, which: str) -> ConfigError:
    return ConfigError(
        f"{path}: expected an Ed25519 {which} key in PEM without a passphrase, got something else; "
        "make a pair with 'unsee verify --new-key FILE'"
    )


def _library() -> tuple[Any, Any]:
    """Ed25519 and serialization of `cryptography`, which is needed here alone."""
    place = "cryptography.hazmat.primitives"
    try:
        return import_module(f"{place}.asymmetric.ed25519"), import_module(f"{place}.serialization")
    except ImportError as error:
        raise ConfigError(
            "signatures need the package cryptography, which is not installed; install it with: "
            "pip install cryptography"
        ) from error
