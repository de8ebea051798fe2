"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest's digest, and so over every file's.

`signature.json` beside the manifest:

    {"format": 1, "algorithm": "ed25519", "key": SHA-256 of the public key, "signature": 128 hexadecimal digits}

The signed message is `DOMAIN` and the 32 bytes of the manifest's SHA-256. Keys are PEM files, as OpenSSL writes them.
The cryptography package is imported only to sign or to check a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import atomic_file, existing_file
from ..common.packages import need
from ..errors import BundleError, UsageError
from .manifest import SIGNATURE

Keys = str | Path | Sequence[str | Path]
VARIABLE = "EDGESMITH_TRUSTED_KEYS"
DOMAIN = b"edgesmith bundle 1\0"
FORMAT = 1
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_ED25519 = "cryptography.hazmat.primitives.asymmetric.ed25519"
_FORMS = "cryptography.hazmat.primitives.serialization"


def generate_key(path: str | Path) -> str:
    """Make a key pair: the private key in `path` (readable only by its owner), the public key in `<path>.pub`.

    Returns:
        The key's name: the SHA-256 of the public key's 32 bytes.

    Raises:
        UsageError: One of the files exists already.
        NotAvailable: cryptography is not installed.
    """
    forms, path = need(_FORMS), Path(path)
    public_path = path.with_name(path.name + ".pub")
    for file in (path, public_path):
        if file.exists():
            raise UsageError(f"{file} is there already", do="choose another name: a key is never overwritten")
    key = need(_ED25519).Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    with atomic_file(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_bytes(secret)
    with atomic_file(public_path) as temporary:
        temporary.write_bytes(public)
    return name_of(key.public_key())


def name_of(public: Any) -> str:
    """Return the SHA-256 of a public key's 32 bytes, in hexadecimal."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def signature_text(digest: str, key: str | Path) -> tuple[str, str]:
    """Return a private key's name, and the signature of a manifest's digest in the form of `signature.json`.

    Raises:
        UsageError: There is no such key, or it is not an Ed25519 key.
        NotAvailable: cryptography is not installed.
    """
    private = _private(existing_file(key, "key"))
    name, signature = name_of(private.public_key()), private.sign(DOMAIN + bytes.fromhex(digest)).hex()
    values = {"format": FORMAT, "algorithm": "ed25519", "key": name, "signature": signature}
    return name, json.dumps(values, indent=1) + "\n"


def _private(path: Path) -> Any:
    try:
        key = need(_FORMS).load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"{path} is not a private key", got=str(error)[:100], expected="what keygen writes") from error
    if not isinstance(key, need(_ED25519).Ed25519PrivateKey):
        raise UsageError(f"{path} is a key of a different type", got=type(key).__name__, expected="an Ed25519 key")
    return key


def trusted_keys(keys: Keys | None) -> list[Any]:
    """Return the public keys in PEM files, one or more each; None means the files of $EDGESMITH_TRUSTED_KEYS.

    Raises:
        UsageError: There is no such file, or no Ed25519 key in it.
        NotAvailable: cryptography is not installed.
    """
    if keys is None:
        keys = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    paths = [keys] if isinstance(keys, (str, Path)) else list(keys)
    return [key for path in paths for key in _public(existing_file(path, "public key"))]


def _public(path: Path) -> list[Any]:
    forms, kind = need(_FORMS), need(_ED25519).Ed25519PublicKey
    try:
        public = [forms.load_pem_public_key(block) for block in _PUBLIC.findall(path.read_bytes())]
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{path} is not a public key", got=str(error)[:100], expected="PEM, as keygen writes"
        ) from error
    if not public or not all(isinstance(key, kind) for key in public):
        raise UsageError(f"{path} holds no Ed25519 key", expected="PEM, as `edgesmith keygen` writes")
    return public


def check_signature(digest: str, signature: bytes, keys: Keys | None, source: Path) -> str:
    """Return the name of the trusted key that signed a bundle; an empty string if no key is required.

    Args:
        digest: SHA-256 of the manifest, in hexadecimal.
        signature: Content of `signature.json`; empty if there is none.
        keys: Public keys, one of which must have signed; None means those of $EDGESMITH_TRUSTED_KEYS, if set.
        source: Path of the bundle, for messages.

    Raises:
        BundleError: It is not signed, is signed by another key, or the signature does not match this manifest.
        UsageError: A key cannot be read.
        NotAvailable: cryptography is not installed.
    """
    if keys is None and not os.environ.get(VARIABLE):
        return ""
    known = {name_of(key): key for key in trusted_keys(keys)}
    name, signed = _read(signature, source)
    if name not in known:
        raise BundleError(
            f"{source} is signed by a key that is not trusted", got=f"key {name[:16]}…",
            expected=" or ".join(f"{one[:16]}…" for one in known) or "a trusted key", do="ask its author for the key",
        )  # fmt: skip
    try:
        known[name].verify(signed, DOMAIN + bytes.fromhex(digest))
    except need("cryptography.exceptions").InvalidSignature as error:
        raise BundleError(
            f"the signature of {source} does not match this manifest", got=f"manifest {digest[:16]}…",
            expected="the manifest that was signed", do="do not load it; get it again from its author",
        ) from error  # fmt: skip
    return name


def _read(signature: bytes, source: Path) -> tuple[str, bytes]:
    if not signature:
        raise BundleError(
            f"{source} is not signed", expected=SIGNATURE, do="sign it with `edgesmith sign` where it was exported"
        )
    try:
        values = json.loads(signature)
        if (values["format"], values["algorithm"]) != (FORMAT, "ed25519"):
            raise ValueError(f"format {values['format']!r}, algorithm {values['algorithm']!r}")
        name, signed = str(values["key"]), bytes.fromhex(values["signature"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"the signature of {source} cannot be read", got=str(error)[:100]) from error
    return name, signed
