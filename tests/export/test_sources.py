"""Where networks come from: words, factories, facts with their origin, spec files; and what is refused before work."""

import json

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.export.api import describe
from edgesmith.export.settings import ExportSettings
from edgesmith.export.sources.facts import Facts
from edgesmith.export.sources.options import SpecOptions, read_spec_file, spec_text
from edgesmith.export.sources.source import find_source
from edgesmith.runtime.common.names import is_name
from edgesmith.runtime.errors import EdgesmithError, ModelError, UsageError
from edgesmith.runtime.spec import InputSpec, ModelSpec, Preprocess
from support.graphs import model

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=1.0, classes=10, colours=3):
        super().__init__()
        channels = int(8 * width)
        self.body = nn.Sequential(
            nn.Conv2d(colours, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(channels, classes),
        )
    def forward(self, x):
        return self.body(x)

class Pair(Net):
    def forward(self, left, right):
        return {"one": self.body(left), "two": {"sum": self.body(left) + self.body(right)}}

class Fixed(Net):
    def forward(self, x):
        return self.body(x[:, :, :32, :32].reshape(-1, 3, 32, 32))

def make(kind):
    return Net(classes={"small": 2, "large": 20}[kind])

def no_module():
    return 3

def raises():
    raise RuntimeError("the disk is away")

number = 7
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "net.onnx").write_bytes(conv().SerializeToString())
    (tmp_path / "net.pt2").write_bytes(b"")
    return tmp_path


def conv(shape="1,3,8,8", output="1,5", opset=18):
    text = f"(float[{shape}] x) => (float[{output}] y) {{ c = Conv(x, w) g = GlobalAveragePool(c) y = Flatten(g) }}"
    return model(text, {"w": (5, 3, 3, 3)}, opset)


WORDS = {
    "mobilenetv2": ("zoo", "mobilenetv2", ""), "net.py:Net": ("factory", "net.py", "Net"),
    "package.module:make": ("factory", "package.module", "make"), "timm:net.a1_in1k": ("timm", "net.a1_in1k", ""),
    "torchvision:resnet18": ("torchvision", "resnet18", ""), "net.onnx": ("onnx", "net.onnx", ""),
    "net.pt2": ("program", "net.pt2", ""),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_names_a_source(word, folder):
    source = find_source(word)
    assert (source.kind, source.place, source.factory) == WORDS[word]


@pytest.mark.parametrize(
    "name", ["ä net; rm -rf (1)::error", "../../x", "日本", "-.-", "a" * 200, "CON", "%s{}", "net.v1+2", "\x1b[31m"]
)
def test_every_file_name_gives_a_name_that_a_network_may_have(name, tmp_path):
    path = tmp_path / f"{name.replace('/', '_')}.onnx"
    path.write_bytes(b"")
    stem = find_source(str(path)).stem
    assert is_name(stem), stem
    assert stem == find_source(str(path)).stem.lower()


def test_what_runs_code_is_known(folder):
    words = {word for word in WORDS if find_source(word).runs_code}
    assert words == {"net.py:Net", "package.module:make", "net.pt2"}


def test_a_module_is_a_source():
    assert find_source(torch.nn.Linear(2, 2)).kind == "module"
    with pytest.raises(UsageError, match="this is no network; got list"):
        find_source([])


REFUSED = {
    "net.py": "got a .py file; .* do: name the class or function in it that makes the network: net.py:Net",
    "weights.pth": "such a file holds weights: name the network, and give --weights weights.pth",
    "net.tflite": "export it to ONNX with the tool that wrote it",
    "nothing.onnx": "cannot export nothing.onnx; got no such file",
    "nothing.py:Net": "cannot export nothing.py:Net; got no such file",
}  # fmt: skip


@pytest.mark.parametrize("word", REFUSED)
def test_a_file_that_is_no_source_is_refused_with_what_to_do(word, folder):
    with pytest.raises(UsageError, match=REFUSED[word]):
        find_source(word)


FACTORIES = {  # word, arguments -> the error
    "no such factory": ("net.py:Nett", (), "has no factory 'Nett'; got no such name; do: did you mean 'Net'"),
    "no callable": ("net.py:number", (), "has no factory 'number'; got int"),
    "a missing argument": ("net.py:make", (), r"do not fit make\(kind\); got missing a required argument: 'kind'"),
    "an unknown argument": ("net.py:Net", ("depth=3",), "do not fit Net.*unexpected keyword argument 'depth'"),
    "an argument without a value": ("net.py:Net", ("depth",), "cannot read the argument; got 'depth'"),
    "no module comes out": ("net.py:no_module", (), "what no_module returns is no network; got int"),
    "it raises": ("net.py:raises", (), "raises raised an error; got RuntimeError: the disk is away at net.py:31"),
    "the file raises": ("broken.py:Net", (), "broken.py cannot be imported; got ModuleNotFound.*nowhere_to_be"),
    "the file leaves": ("leaves.py:Net", (), "leaves.py cannot be imported; got SystemExit: 3 at leaves.py:2"),
    "no such package": ("nowhere.at.all:Net", (), "there is no module 'nowhere.at.all'"),
    "a size it cannot compute": ("net.py:Fixed", (), r"cannot compute input \(1, 3, 4, 4\); got RuntimeError"),
}  # fmt: skip


@pytest.mark.parametrize("case", FACTORIES)
def test_a_factory_that_cannot_be_used_is_one_line(case, folder):
    word, arguments, said = FACTORIES[case]
    with pytest.raises(EdgesmithError, match=said) as caught:
        describe(word, args=arguments, size=4 if "size" in case else "")
    assert "\n" not in str(caught.value)


def test_a_factory_gets_its_arguments_and_its_folder(folder):
    (folder / "helper.py").write_text("classes = 4\n")
    (folder / "user.py").write_text(
        "from helper import classes\nfrom net import Net\ndef net(): return Net(classes=classes)\n"
    )
    assert describe("net.py:Net", args=("classes=7", "width=0.5"), size=32).spec.num_classes == 7
    assert describe("net.py:make", args=("kind=large",), size=32).spec.num_classes == 20
    assert describe("user.py:net", size=32).spec.num_classes == 4


def facts_of(source, **options):
    network = describe(source, **options)
    return network, {fact.name: (fact.value, fact.origin) for fact in network.facts}


def test_the_facts_of_a_module_say_who_says_them(folder):
    network, facts = facts_of("net.py:Net", size="32x48", mean="0.5", args=("colours=1",))
    assert network.spec.input_shape == (1, 32, 48)
    assert facts["size"] == ((32, 48), "--size")
    assert facts["mean"] == ((0.5,), "--mean")
    assert facts["std"] == ((0.229,), "a guess: as for ImageNet")
    assert facts["channels"] == ("GRAY", "a guess")
    assert facts["num_classes"] == (10, "a guess: the output is (N, 10)")
    assert network.spec.preprocess == Preprocess((32, 48), 37, "bilinear", (0.5,), (0.229,), "GRAY")


def test_a_module_with_several_inputs_and_outputs_needs_a_shape_for_each(folder):
    with pytest.raises(UsageError, match="several inputs; got left, right; .* give --shape left=SIZES,right=SIZES"):
        describe("net.py:Pair")
    spec = describe("net.py:Pair", shape="right=1x3x16x16,left=1x3x16x16").spec
    assert (spec.input_name, spec.other_inputs) == ("left", (InputSpec("right", (3, 16, 16)),))
    assert (spec.output_names, spec.task, spec.takes_images) == (("one", "two_sum"), "features", False)


def test_a_file_of_torch_export_is_a_source(folder):
    class Two(torch.nn.Module):
        def forward(self, left, right):
            return torch.relu(left) + right.float().mean(1, keepdim=True)[..., None, None]

    example = torch.zeros(1, 3, 8, 6), torch.zeros(1, 4, dtype=torch.int64)
    torch.export.save(torch.export.export(Two(), example), "two.pt2")
    network = describe("two.pt2")
    assert network.spec.inputs == (InputSpec("left", (3, 8, 6)), InputSpec("right", (4,), "int64"))
    assert network.module.eval()(*example).shape == (1, 3, 8, 6)
    with pytest.raises(UsageError, match="takes no arguments; got width"):
        describe("two.pt2", args=("width=2",))
    (folder / "odd.pt2").write_bytes(b"no program")
    with pytest.raises(ModelError, match="torch cannot read odd.pt2; got .*torch.export.save"):
        describe("odd.pt2")


def test_a_config_as_timm_has_it_is_read(folder):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    module.pretrained_cfg = {
        "input_size": (3, 48, 40), "interpolation": "bicubic", "crop_pct": 0.8, "mean": (0.5,) * 3, "std": (0.25,) * 3,
        "label_names": ["a", "b", "c", "d"],
    }  # fmt: skip
    spec = describe(module).spec
    assert spec.input_shape == (3, 48, 40)
    assert spec.preprocess == Preprocess((48, 40), 50, "bicubic", (0.5,) * 3, (0.25,) * 3)
    assert spec.labels == ("a", "b", "c", "d")


GRAPHS = {  # model, options -> facts of the spec
    "a classifier": (conv(), {}, {"task": "classify", "num_classes": 5, "scores": "logits", "layout": "NCHW"}),
    "a free batch": (conv("N,3,8,8", "N,5"), {}, {"input_shape": (3, 8, 8)}),
    "free sizes": (conv("N,3,H,W", "N,5"), {"size": "16x24"}, {"input_shape": (3, 16, 24)}),
    "free sizes by shape": (conv("N,3,H,W", "N,5"), {"shape": "1x3x16x16"}, {"input_shape": (3, 16, 16)}),
    "an old opset": (conv(opset=11), {}, {"num_classes": 5}),
    "NHWC": (
        model("(float[1,8,8,3] x) => (float[1,8,8,3] y) { y = Neg(x) }"), {},
        {"layout": "NHWC", "task": "features", "takes_images": True},
    ),
    "bytes": (
        model("(uint8[1,8,8,3] x) => (float[1,8,8,3] y) { y = Cast<to=1>(x) }"), {},
        {"dtype": "uint8", "layout": "NHWC"},
    ),
    "two inputs": (
        model("(float[N,3,8,8] x, float[N,2] s) => (float[N,3,8,8] y) { y = Relu(x) }"), {},
        {"other_inputs": (InputSpec("s", (2,)),), "takes_images": False},
    ),
    "a sound": (model("(float[1,40,200] x) => (float[1,40,200] y) { y = Neg(x) }"), {}, {"takes_images": False}),
    "many channels": (model("(float[1,8,4,4] x) => (float[1,8,4,4] y) { y = Neg(x) }"), {}, {"takes_images": False}),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPHS)
def test_the_facts_of_a_graph(case, tmp_path):
    made, options, expected = GRAPHS[case]
    onnx.save(made, tmp_path / "net.onnx")
    spec = describe(str(tmp_path / "net.onnx"), **options).spec
    assert {name: getattr(spec, name) for name in expected} == expected
    assert ModelSpec.from_json(spec.to_json()) == spec


CONTRADICTIONS = {
    "a free size that nothing says": (conv("N,3,H,W", "N,5"), {}, "has a free size; got 1x3xHxW; .*give --size 224"),
    "one that is left": (conv("N,3,H,W", "N,5"), {"shape": "1x3x8"}, "--shape does not fit the input 'x'; got 1x3x8"),
    "a size that the graph fixes": (conv(), {"size": 32}, r"the size does not fit .* got 32, 32 \(--size\)"),
    "another input": (conv(), {"shape": "z=1x3x8x8"}, "--shape gives an unknown input; got z; expected x"),
    "two means": (conv(), {"mean": "0.1,0.2"}, "the mean does not fit the network's input; got 0.1, 0.2"),
    "a deviation of 0": (conv(), {"std": "0"}, "the standard deviation does not fit"),
    "one colour": (conv(), {"channels": "GRAY"}, r"the colours do not fit .*; got GRAY \(--channels\)"),
    "labels": (conv(), {"labels": ("a", "b")}, "the labels do not fit the network; got 2 labels; expected 5"),
    "no batch at all": (model("(float[3,8,8] x) => (float[3,8,8] y) { y = Neg(x) }"), {}, "no batch of 1; got 3x8x8"),
    "an input without a batch": (
        model("(float[N,3,8,8] x, float t) => (float[N,3,8,8] y) { y = Relu(x) }"), {}, "'t' of .* has no batch axis",
    ),
    "text": (model("(string[1,3] x) => (string[1,3] y) { y = Identity(x) }"), {}, "a type that cannot be fed"),
    "a layout": (conv(), {"layout": "HCWN"}, "unknown --layout 'HCWN'; expected NCHW, NHWC"),
    "a task": (conv(), {"task": "clasify"}, "unknown --task 'clasify'; .*did you mean 'classify'"),
    "a size in words": (conv(), {"size": "big"}, "cannot read the size; got 'big'; expected 320, or HEIGHTxWIDTH"),
    "a resize in words": (conv(), {"resize": "-3"}, "cannot read --resize; got '-3'; expected the shorter side"),
    "means in words": (conv(), {"mean": "grey"}, "cannot read --mean; got 'grey'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_the_graph_is_refused(case, tmp_path):
    made, options, said = CONTRADICTIONS[case]
    onnx.save(made, tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=said):
        describe(str(tmp_path / "net.onnx"), **options)


def test_numbers_above_one_are_meant_for_pixels_to_255(tmp_path):
    onnx.save(conv(), tmp_path / "net.onnx")
    preprocess = describe(str(tmp_path / "net.onnx"), mean="127.5", std=127.5).spec.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    preprocess = describe(str(tmp_path / "net.onnx"), mean="0", std="1", resize="stretch").spec.preprocess
    assert (preprocess.mean, preprocess.std, preprocess.resize) == ((0.0,) * 3, (1.0,) * 3, 0)


def test_metadata_of_ultralytics_is_read(tmp_path):
    made = conv("1,3,8,8", "1,5")
    names = {0: "person", 1: "dog", 2: "cat", 3: "car", 4: "bus"}
    for key, value in {"author": "Ultralytics", "task": "classify", "names": str(names), "imgsz": "[8, 8]"}.items():
        made.metadata_props.add(key=key, value=value)
    onnx.save(made, tmp_path / "net.onnx")
    network, facts = facts_of(str(tmp_path / "net.onnx"))
    assert network.spec.labels == ("person", "dog", "cat", "car", "bus")
    assert (facts["mean"], facts["task"]) == (
        ((0.0,) * 3, "Ultralytics' metadata"),
        ("classify", "Ultralytics' metadata"),
    )


def test_a_spec_file_says_what_the_table_shows(folder):
    network = describe("net.onnx", mean="0.5", std="0.25", labels=('a "quoted" one', "ä", "c", "d", "e"))
    (folder / "net.toml").write_text(spec_text({fact.name: fact for fact in network.facts}), encoding="utf-8")
    again, facts = facts_of("net.onnx", spec=folder / "net.toml")
    assert again.spec == network.spec
    assert facts["mean"] == ((0.5,), "--spec net.toml")
    (folder / "labels.txt").write_text("1\n2\n3\n4\n5\n\n")
    (folder / "other.toml").write_text('[network]\nlabels = "labels.txt"\n[preprocess]\nresize = "stretch"\n')
    spec = describe("net.onnx", spec=folder / "other.toml").spec
    assert (spec.labels, spec.preprocess.resize) == (("1", "2", "3", "4", "5"), 0)


SPEC_FILES = {
    "no TOML": ("a = = 1", "cannot read .*expected TOML, as `edgesmith spec` writes it"),
    "an unknown table": ("[inputs]\nname = 'x'", r"unknown table; got \[inputs\]; .* did you mean 'input'"),
    "an unknown key": ("[preprocess]\nmeans = [1]", "unknown key; got preprocess.means; .* did you mean 'mean'"),
    "a number for a text": ("[input]\nname = 3", "input.name in .* cannot be used; got 3"),
    "a text for numbers": ("[preprocess]\nmean = 'grey'", "preprocess.mean in .* got 'grey'; expected numbers"),
    "one number for a list": ("[preprocess]\nmean = 0.5", "preprocess.mean in .* cannot be used"),
    "a truth value": ("[network]\nclasses = true", "network.classes in .* cannot be used"),
    "a key without a table": ("name = 'x'", "unknown table"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPEC_FILES)
def test_a_spec_file_that_cannot_be_used_is_refused(case, tmp_path):
    text, said = SPEC_FILES[case]
    (tmp_path / "net.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_spec_file(tmp_path / "net.toml")


def test_what_is_said_first_is_believed():
    facts = Facts()
    facts.add("first", mean=(0.1,), std=None)
    facts.add("second", mean=(0.2,), std=(0.3,))
    assert [(fact.value, fact.origin) for fact in facts] == [((0.1,), "first"), ((0.3,), "second")]
    facts.confirm("the graph", mean=(0.1,), layout="NCHW")
    with pytest.raises(UsageError, match=r"mean: .* does not fit the graph; got 0.1 \(first\); expected 0.4"):
        facts.confirm("the graph", mean=(0.4,))
    with pytest.raises(KeyError):
        facts.add("third", colour="red")


SETTINGS = {
    "weights of a file": (("net.onnx",), {"weights": "random"}, "an ONNX file has its own weights"),
    "options of ours": (("lenet5",), {"mean": "0", "weights": "random"}, "lenet5 is a network of ours"),
    "a size of ours": (("lenet5",), {"size": "48", "weights": "random"}, "lenet5 takes images of one size"),
    "no data": (("net.py:Net",), {}, "no data for net; .* give --data DIR"),
    "noise to train on": (("lenet5",), {"data": "random"}, "nothing can be trained on noise"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_cannot_lead_to_a_bundle_are_refused_before_any_code_runs(case, folder, monkeypatch):
    from edgesmith.export import pipeline
    from edgesmith.export.api import export

    monkeypatch.setattr(pipeline.Flow, "stage", lambda *_: pytest.fail("work began"))
    (source,), options, said = SETTINGS[case]
    if case == "weights of a file":
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        options = {**options, "data": "random"}
    with pytest.raises(UsageError, match=said):
        export(source, **options)


def test_settings_are_plain_text_for_the_record(folder):
    settings = ExportSettings(torch.nn.Linear(2, 2), describe=SpecOptions(size="32"))
    assert settings.to_dict()["model"] == "Linear"
    assert ExportSettings("net.py:Net").to_dict()["model"] == "net.py:Net"


def test_the_command_writes_a_spec_and_never_over_what_is_not_ours(folder):
    run = CliRunner().invoke
    result = run(main, ["spec", "net.onnx", "-o", "net.toml", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_classes"] == {"value": 5, "origin": "a guess: the output is (N, 5)"}
    assert "facts are guesses" in result.stderr
    assert run(main, ["spec", "net.onnx", "-o", "net.toml"]).exit_code == 0
    (folder / "thesis.toml").write_text("[thesis]\n")
    assert run(main, ["spec", "net.onnx", "-o", "thesis.toml"]).exit_code == 2
    assert (folder / "thesis.toml").read_text() == "[thesis]\n"
    assert "network of ours" in run(main, ["spec", "lenet5"]).output
    array = np.zeros((4, 3, 8, 8), np.float32)
    np.save(folder / "x.npy", array)
    assert "mean" not in json.loads(run(main, ["spec", "net.onnx", "--data", "x.npy", "--json"]).stdout)


def test_nothing_of_an_error_in_a_file_is_lost(folder):
    (folder / "late.py").write_text("def net():\n    x = 1\n    return undefined_name\n")
    with pytest.raises(ModelError, match="net raised an error; got NameError: name 'undefined_name'.* at late.py:3"):
        describe("late.py:net")
