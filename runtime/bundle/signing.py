"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest's digest, and so over every file's.

`signature.json` beside the manifest:

    {"format": 2, "algorithm": "ed25519", "key": SHA-256 of the public key, "signature": 128 hexadecimal digits,
     "name": the network's, "version": a counter from 1, "expires": "2027-12-31" or ""}

The signed message is `DOMAIN`, and as compact JSON in this order "manifest" (its SHA-256), "name", "version",
"expires". Format 1 had none of these three: the message was `FIRST_DOMAIN` and the 32 bytes of the manifest's SHA-256;
it is read as version 0. Keys are PEM files, as OpenSSL writes them. The cryptography package is imported only to sign
or to check.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..common.files import atomic_file, existing_file
from ..common.packages import need
from ..errors import BundleError, UsageError
from .manifest import SIGNATURE

Keys = str | Path | Sequence[str | Path]
VARIABLE = "EDGESMITH_TRUSTED_KEYS"
FIRST_DOMAIN, DOMAIN = b"edgesmith bundle 1\0", b"edgesmith bundle 2\0"
FORMAT = 2
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_ED25519 = "cryptography.hazmat.primitives.asymmetric.ed25519"
_FORMS = "cryptography.hazmat.primitives.serialization"


@dataclass(frozen=True)
class Signature:
    """Whose signature it is (the key's name), and what it binds: the network's name, a version, the last valid day."""

    key: str
    name: str
    version: int = 0
    expires: str = ""

    def message(self, digest: str) -> bytes:
        """Return the signed bytes for a manifest's digest."""
        if not self.version:
            return FIRST_DOMAIN + bytes.fromhex(digest)
        values = {"manifest": digest, "name": self.name, "version": self.version, "expires": self.expires}
        return DOMAIN + json.dumps(values, separators=(",", ":")).encode()


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


def signature_text(digest: str, key: str | Path, name: str, version: int = 1, expires: str = "") -> tuple[str, str]:
    """Return a private key's name, and its signature of a manifest's digest in the form of `signature.json`.

    Args:
        digest: SHA-256 of the manifest.
        key: Path of the private key.
        name: The network's name.
        version: A counter; a device that ran one refuses lower ones.
        expires: The last day on which the signature is valid (UTC), "2027-12-31"; empty for no end.

    Raises:
        UsageError: There is no such key, it is not an Ed25519 key, or the version or day is not valid.
        NotAvailable: cryptography is not installed.
    """
    if version < 1 or (expires and not _is_day(expires)):
        got = f"version {version}, expires {expires!r}"
        raise UsageError("the signature's terms are not valid", got=got, expected="1 or more, and a day as 2027-12-31")
    private = _private(existing_file(key, "key"))
    terms = Signature(name_of(private.public_key()), name, version, expires)
    values = {"format": FORMAT, "algorithm": "ed25519", **asdict(terms),
              "signature": private.sign(terms.message(digest)).hex()}  # fmt: skip
    return terms.key, json.dumps(values, indent=1) + "\n"


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


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


def check_signature(
    digest: str, signature: bytes, keys: Keys | None, source: Path, network: str, min_version: int = 0
) -> Signature | None:
    """Return the signature of a trusted key; None if no key is required.

    Args:
        digest: SHA-256 of the manifest, in hexadecimal.
        signature: Content of `signature.json`; empty if there is none.
        keys: Public keys, one of which must have signed; None means those of $EDGESMITH_TRUSTED_KEYS, if it is set.
        source: Path of the bundle, for messages.
        network: The network's name in the manifest.
        min_version: Lowest version that the signature may have.

    Raises:
        BundleError: It is not signed, is signed by another key, the signature does not match this manifest, has
            expired, or is for another name or a lower version.
        UsageError: A key cannot be read, or a version is required and no key.
        NotAvailable: cryptography is not installed.
    """
    if keys is None and os.environ.get(VARIABLE) is None:
        if min_version:
            raise UsageError(
                "a version can be required of signed bundles only", do=f"give a trusted key, or {VARIABLE}"
            )
        return None
    known = {name_of(key): key for key in trusted_keys(keys)}
    terms, signed = _read(signature, source, network)
    if terms.key not in known:
        raise BundleError(
            f"{source} is signed by a key that is not trusted", got=f"key {terms.key[:16]}…",
            expected=" or ".join(f"{one[:16]}…" for one in known) or "a trusted key", do="ask its author for the key",
        )  # fmt: skip
    try:
        known[terms.key].verify(signed, terms.message(digest))
    except need("cryptography.exceptions").InvalidSignature as error:
        raise BundleError(
            f"the signature of {source} does not match this manifest", got=f"manifest {digest[:16]}…",
            expected="the manifest that was signed", do="do not load it; get it again from its author",
        ) from error  # fmt: skip
    _check_terms(terms, source, network, min_version)
    return terms


def _check_terms(terms: Signature, source: Path, name: str, min_version: int) -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    if terms.name != name:
        raise BundleError(f"the signature of {source} is for another network", got=terms.name, expected=name)
    if terms.expires and terms.expires < today:
        raise BundleError(
            f"the signature of {source} has expired", got=f"valid until {terms.expires}; today is {today}",
            do="get a newer one from its author, or set this machine's clock",
        )  # fmt: skip
    if terms.version < min_version:
        got = f"version {terms.version}"
        raise BundleError(f"{source} is an older version", got=got, expected=f"{min_version} or higher")


def _read(signature: bytes, source: Path, name: str) -> tuple[Signature, bytes]:
    if not signature:
        raise BundleError(
            f"{source} is not signed", expected=SIGNATURE, do="sign it with `edgesmith sign` where it was exported"
        )
    try:
        values = json.loads(signature)
        if (values["format"], values["algorithm"]) not in ((1, "ed25519"), (FORMAT, "ed25519")):
            raise ValueError(f"format {values['format']!r}, algorithm {values['algorithm']!r}")
        terms = Signature(str(values["key"]), name)
        if values["format"] == FORMAT:
            terms = Signature(terms.key, *(values[key] for key in ("name", "version", "expires")))
            if type(terms.version) is not int or terms.version < 1 or (terms.expires and not _is_day(terms.expires)):
                raise ValueError(f"version {terms.version!r}, expires {terms.expires!r}")
        signed = bytes.fromhex(values["signature"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"the signature of {source} cannot be read", got=str(error)[:100]) from error
    return terms, signed
