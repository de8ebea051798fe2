"""Signatures: what they catch, what a device that trusts one key refuses, and that what was checked is what runs."""

import datetime
import hashlib
import json
import os
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.runtime import bundle, load
from edgesmith.runtime.backends import ort
from edgesmith.runtime.bundle import rollback, signing, writer
from edgesmith.runtime.errors import BundleError, EdgesmithError, UsageError
from support.bundles import colour_bundle, golden_inputs, picture

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        signing.generate_key(folder / name)
    return folder


@pytest.fixture(scope="module")
def signed(keys, tmp_path_factory):
    made = colour_bundle(tmp_path_factory.mktemp("signed") / "colours")
    writer.sign_bundle(made, keys / "ours")
    return made.folder


@pytest.fixture
def copy(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "copy")


def test_a_signed_bundle_loads_where_its_key_is_trusted(signed, keys):
    with load(signed, trusted_key=keys / "ours.pub", device="ort") as model:
        assert model(picture("green")).top(1)[0].label == "green"
    opened = bundle.read(signed, trusted_key=[keys / "theirs.pub", keys / "ours.pub"])
    assert bundle.verify(opened, threads=1).passed
    assert opened.check_signature(keys / "ours.pub").key == signing.name_of(signing.trusted_keys(keys / "ours.pub")[0])


def test_a_private_key_is_for_its_owner_only_and_never_overwritten(keys):
    assert (keys / "ours").stat().st_mode & 0o777 == 0o600
    before = (keys / "ours").read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        signing.generate_key(keys / "ours")
    assert (keys / "ours").read_bytes() == before


def edit_manifest(folder, keys):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("Apache-2.0", "GPL-3.0"))


def edit_a_tolerance(folder, keys):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"tolerance": 0.001', '"tolerance": 0.9'))


def strip(folder, keys):
    (folder / "signature.json").unlink()


def sign_with_another_key(folder, keys):
    writer.sign_bundle(bundle.opened(folder), keys / "theirs")


def claim_our_key(folder, keys):
    sign_with_another_key(folder, keys)
    path = folder / "signature.json"
    ours = signing.name_of(signing.trusted_keys(keys / "ours.pub")[0])
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": ours}))


def take_anothers_signature(folder, keys):
    other = colour_bundle(folder.parent / "other" / "colours", batch=1)
    writer.sign_bundle(other, keys / "ours")
    shutil.copyfile(other.folder / "signature.json", folder / "signature.json")


def empty_it(folder, keys):
    (folder / "signature.json").write_bytes(b"")


def edit_terms(**changes):
    def edit(folder, keys):
        path = folder / "signature.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def change_its_algorithm(folder, keys):
    path = folder / "signature.json"
    path.write_text(path.read_text().replace("ed25519", "none"))


FORGED = {
    "an edited manifest": (edit_manifest, "the signature of .* does not match this manifest"),
    "a wider tolerance": (edit_a_tolerance, "the signature of .* does not match this manifest"),
    "no signature": (strip, "is not signed; expected signature.json"),
    "another key": (sign_with_another_key, "is signed by a key that is not trusted; got key .*expected .*"),
    "another key under our name": (claim_our_key, "the signature of .* does not match this manifest"),
    "another bundle's signature": (take_anothers_signature, "the signature of .* does not match this manifest"),
    "an empty signature": (empty_it, "is not signed"),
    "a higher version": (edit_terms(version=9), "the signature of .* does not match this manifest"),
    "another name": (edit_terms(name="other"), "the signature of .* does not match this manifest"),
    "an end that was moved": (edit_terms(expires="2999-12-31"), "the signature of .* does not match this manifest"),
    "an earlier format": (edit_terms(format=1), "the signature of .* does not match this manifest"),
    "a version that is none": (edit_terms(version=True), "cannot be read; got version True"),
    "version 0": (edit_terms(version=0), "cannot be read; got version 0"),
    "a day that is none": (edit_terms(expires="soon"), "cannot be read; got version 1, expires 'soon'"),
    "no algorithm": (change_its_algorithm, "cannot be read; got format 2, algorithm 'none'"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forgery_is_refused(case, copy, keys, monkeypatch):
    forge, message = FORGED[case]
    forge(copy, keys)
    with pytest.raises(BundleError, match=message):
        load(copy, trusted_key=keys / "ours.pub", device="ort")
    with pytest.raises(BundleError, match=message):
        load(bundle.opened(copy), trusted_key=keys / "ours.pub", device="ort")
    monkeypatch.setenv(signing.VARIABLE, str(keys / "ours.pub"))
    with pytest.raises(BundleError, match=message):
        bundle.read(copy)


def test_a_device_can_be_told_to_run_signed_bundles_only(signed, copy, keys, monkeypatch):
    strip(copy, keys)
    load(copy, device="ort").close()
    monkeypatch.setenv(signing.VARIABLE, f"{keys / 'theirs.pub'}{os.pathsep}{keys / 'ours.pub'}")
    load(signed, device="ort").close()
    with pytest.raises(BundleError, match="is not signed"):
        load(copy, device="ort")
    for nobody in ("", os.pathsep):
        monkeypatch.setenv(signing.VARIABLE, nobody)
        with pytest.raises(BundleError, match="not trusted"):
            load(signed, device="ort")
        with pytest.raises(BundleError, match="is not signed"):
            load(copy, device="ort")


def test_a_zip_keeps_its_signature_and_can_be_signed(copy, keys, tmp_path):
    packed = bundle.pack(bundle.opened(copy), tmp_path / "signed.zip")
    assert bundle.read(packed, trusted_key=keys / "ours.pub").signature
    strip(copy, keys)
    plain = bundle.pack(bundle.opened(copy), tmp_path / "plain.zip")
    writer.sign_bundle(bundle.opened(plain), keys / "ours")
    assert bundle.verify(bundle.read(plain, trusted_key=keys / "ours.pub"), threads=1).passed


def test_what_is_damaged_is_not_signed(copy, keys):
    (copy / "golden" / "inputs.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"golden/inputs\.npz was changed"):
        writer.sign_bundle(bundle.opened(copy), keys / "ours")


BAD_KEYS = {"nothing": b"", "text": b"hello", "half": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_what_is_no_key_is_a_usage_error(case, signed, tmp_path):
    (tmp_path / "key").write_bytes(BAD_KEYS[case])
    with pytest.raises(UsageError, match="not a public key|holds no Ed25519 key"):
        load(signed, trusted_key=tmp_path / "key")
    with pytest.raises(UsageError, match="is not a private key"):
        writer.sign_bundle(bundle.opened(signed), tmp_path / "key")
    with pytest.raises(UsageError, match="cannot read public key .*; got no such file"):
        load(signed, trusted_key=tmp_path / "none")


def test_a_key_of_another_kind_is_refused(signed, tmp_path):
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec").write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    )
    (tmp_path / "ec.pub").write_bytes(
        key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(UsageError, match="is a key of a different type"):
        writer.sign_bundle(bundle.opened(signed), tmp_path / "ec")
    with pytest.raises(UsageError, match="holds no Ed25519 key"):
        load(signed, trusted_key=tmp_path / "ec.pub")


def test_the_commands(copy, keys, tmp_path):
    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    assert call("keygen", tmp_path / "new").exit_code == 0
    assert call("verify", copy, "--key", tmp_path / "new.pub").exit_code == 1
    done = call("sign", copy, "--key", tmp_path / "new")
    assert (done.exit_code, "is signed by key" in done.stdout) == (0, True)
    done = call("verify", copy, "--key", tmp_path / "new.pub", "--threads", 1)
    assert done.exit_code == 0
    assert "signed by the trusted key" in done.stdout
    assert json.loads(call("verify", copy, "--json", "--threads", 1).stdout)["signed_by"] == ""
    assert call("keygen", tmp_path / "new").exit_code == 2


def test_what_was_checked_is_what_is_loaded(copy, monkeypatch):
    """The file is exchanged after its digest was checked and before the backend opens it: the checked bytes run."""
    path = copy / "onnx" / "colours-fp32.onnx"
    opened, opening = bundle.opened(copy), ort.open

    def exchanged(*arguments, **settings):
        path.write_bytes(b"something else")
        return opening(*arguments, **settings)

    monkeypatch.setattr(ort, "open", exchanged)
    with load(opened, device="ort", precision="fp32", threads=1) as model:
        assert model.run(golden_inputs()["input"])["output"].shape == (4, 3)
    with pytest.raises(BundleError, match="was changed"):
        opened.content("onnx/colours-fp32.onnx")


def test_a_kept_bundle_trusts_no_earlier_check(copy, keys):
    """Files that are exchanged between two uses of one Bundle, each of which was checked before."""
    kept = bundle.read(copy, trusted_key=keys / "ours.pub")
    assert bundle.verify(kept, threads=1).passed
    (copy / "golden" / "inputs.npz").write_bytes(b"x" * kept.manifest.files["golden/inputs.npz"].bytes)
    for use in (kept.golden_inputs, lambda: bundle.pack(kept, copy.parent / "b.zip")):
        with pytest.raises(BundleError, match=r"golden/inputs\.npz was changed"):
            use()
    assert not (copy.parent / "b.zip").exists()
    assert kept.problem("golden/inputs.npz")
    assert not bundle.verify(kept, threads=1).passed


def test_a_manifest_that_was_exchanged_is_not_packed(copy):
    kept = bundle.opened(copy)
    edit_manifest(copy, None)
    with pytest.raises(BundleError, match=r"manifest\.json was changed"):
        bundle.pack(kept, copy.parent / "b.zip")


@pytest.fixture
def releases(signed, keys, tmp_path, monkeypatch):
    """Return a function that gives a bundle signed as a version, and begin with a device that ran nothing."""
    monkeypatch.setenv(rollback.VARIABLE, str(tmp_path / "state"))

    def release(version, **terms):
        folder = tmp_path / f"{version}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(signed, folder)
        writer.sign_bundle(bundle.opened(folder), keys / "ours", version, **terms)
        return folder

    return release


def test_a_device_refuses_less_than_it_ran(releases, keys):
    first, second = releases(1), releases(2)
    settings = {"trusted_key": keys / "ours.pub", "device": "ort", "precision": "fp32"}
    for folder in (first, second, second):
        load(folder, **settings).close()
    with pytest.raises(BundleError, match="is an older version of colours; got version 1; expected 2 or higher"):
        load(first, **settings)
    load(first, **settings, allow_rollback=True).close()
    with pytest.raises(BundleError, match="older version"):  # going back once is not going back for ever
        load(first, **settings)
    load(first, device="ort", precision="fp32").close()  # no key is required: nothing is promised
    bundle.read(first, trusted_key=keys / "ours.pub")  # reading is not running


def test_what_did_not_load_is_not_remembered(releases, keys):
    first, broken = releases(1), releases(2)
    (broken / "onnx" / "colours-fp32.onnx").write_bytes(b"")
    settings = {"trusted_key": keys / "ours.pub", "device": "ort", "precision": "fp32"}
    with pytest.raises(BundleError, match="was changed"):
        load(broken, **settings)
    load(first, **settings).close()


def test_a_memory_that_was_damaged_or_may_not_be_written_is_no_permission(releases, keys):
    folder, settings = releases(1), {"trusted_key": keys / "ours.pub", "device": "ort", "precision": "fp32"}
    load(folder, **settings).close()
    (file,) = rollback.versions_folder().iterdir()
    file.write_text("none")
    with pytest.raises(EdgesmithError, match="cannot read .*; expected the version of a network that ran here"):
        load(folder, **settings)
    shutil.rmtree(file.parent)
    file.parent.write_text("")
    with pytest.raises(EdgesmithError):
        load(folder, **settings)


def test_a_name_and_a_version_can_be_required(releases, keys):
    folder, key = releases(3), keys / "ours.pub"
    for opened in (folder, bundle.opened(folder)):
        load(opened, trusted_key=key, name="colours", min_version=3, device="ort", precision="fp32").close()
        with pytest.raises(BundleError, match="is another network; got colours; expected signs"):
            load(opened, trusted_key=key, name="signs")
        with pytest.raises(BundleError, match="is an older version; got version 3; expected 4 or higher"):
            load(opened, trusted_key=key, min_version=4)
    with pytest.raises(BundleError, match="is another network"):
        load(folder, name="signs")
    with pytest.raises(UsageError, match="a version can be required of signed bundles only"):
        load(folder, min_version=1)


def test_a_signature_ends_on_its_day(releases, keys):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    key = keys / "ours.pub"
    for days in (0, 1):
        bundle.read(releases(1, expires=str(today + datetime.timedelta(days))), trusted_key=key)
    with pytest.raises(BundleError, match="has expired; got valid until"):
        bundle.read(releases(1, expires=str(today - datetime.timedelta(1))), trusted_key=key)
    for terms in ({"version": 0}, {"version": 1, "expires": "31.12.2027"}, {"version": 1, "expires": "20271231"}):
        with pytest.raises(UsageError, match="terms are not valid"):
            releases(**terms)


def test_a_signature_of_the_first_format_is_version_0(copy, keys):
    """Written as earlier versions wrote it."""
    opened = bundle.opened(copy)
    private = signing._private(keys / "ours")
    values = {"format": 1, "algorithm": "ed25519", "key": signing.name_of(private.public_key()),
              "signature": private.sign(b"edgesmith bundle 1\0" + bytes.fromhex(opened.digest)).hex()}  # fmt: skip
    (copy / "signature.json").write_text(json.dumps(values))
    assert bundle.read(copy, trusted_key=keys / "ours.pub").check_signature(keys / "ours.pub").version == 0
    with pytest.raises(BundleError, match="got version 0; expected 1 or higher"):
        bundle.read(copy, trusted_key=keys / "ours.pub", min_version=1)


def test_a_signature_can_be_checked_with_openssl(releases, keys, tmp_path):
    """The mapping in docs/threat-model.md, without code of ours."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl here")
    folder = releases(7, expires="2999-12-31")
    terms = json.loads((folder / "signature.json").read_text())
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    text = f'{{"manifest":"{digest}","name":"{terms["name"]}","version":7,"expires":"2999-12-31"}}'
    (tmp_path / "message").write_bytes(b"edgesmith bundle 2\0" + text.encode())
    (tmp_path / "signature").write_bytes(bytes.fromhex(terms["signature"]))
    words = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pub", "-rawin", "-in",
             tmp_path / "message", "-sigfile", tmp_path / "signature"]  # fmt: skip
    assert subprocess.run(words, capture_output=True).returncode == 0
    (tmp_path / "message").write_bytes(b"edgesmith bundle 2\0" + text.replace("7", "8").encode())
    assert subprocess.run(words, capture_output=True).returncode != 0
