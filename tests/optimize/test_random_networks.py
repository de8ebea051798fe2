"""Random CNNs: the result computes the same, keeps its interface, and a second run finds nothing to do."""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesmith.optimize.optimizer import optimize

f32, i64 = np.float32, np.int64


class Builder:
    """Grows a random graph from tensors of shape (N, C, H, W) that are there so far."""

    def __init__(self, draw, opset):
        self.draw, self.opset = draw, opset
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.nodes, self.weights, self.shared = [], [], {}
        self.tensors = [("x", 4, 8)]

    def add(self, kind, inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def const(self, array):
        name = f"w{len(self.weights)}"
        if self.draw(st.booleans()):
            self.weights.append(onnx.numpy_helper.from_array(np.asarray(array), name))
            return name
        return self.add("Constant", [], value=onnx.numpy_helper.from_array(np.asarray(array)))

    def set(self, kind, x, since, **settings):
        """Add a node whose settings are attributes before an opset and inputs from it on."""
        if self.opset < since:
            return self.add(kind, [x], **settings)
        floats = ("min", "max", "value")
        arrays = [np.array(value, f32 if key in floats else i64) for key, value in settings.items()]
        return self.add(kind, [x, *(self.const(array) for array in arrays)])

    def normal(self, *shape):
        """Return normal weights, those of an earlier layer of the same shape now and then."""
        if shape not in self.shared or self.draw(st.booleans()):
            self.shared[shape] = self.const(self.rng.normal(0, 0.4, shape).astype(f32))
        return self.shared[shape]

    def pick(self):
        return self.draw(st.sampled_from(self.tensors))

    def grow(self):
        kinds = [name[5:] for name in dir(self) if name.startswith("make_")]
        made = getattr(self, f"make_{self.draw(st.sampled_from(kinds))}")(*self.pick())
        if made is not None:
            self.tensors.append(made)

    def make_conv(self, x, c, s):
        kernel, pad = self.draw(st.sampled_from([(1, 0), (3, 1), (3, 0)]))
        if kernel > s:
            return None
        group = self.draw(st.sampled_from([1, 1, 1 + (c % 2 == 0), c]))
        out = c if group == c else 2 * self.draw(st.integers(1, 3))
        inputs = [x, self.normal(out, c // group, kernel, kernel)] + [self.normal(out)] * self.draw(st.integers(0, 1))
        if self.draw(st.integers(0, 4)) == 0:
            same = self.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
            return self.add("Conv", inputs, group=group, auto_pad=same), out, s
        return self.add("Conv", inputs, group=group, pads=[pad] * 4), out, s + 2 * pad - kernel + 1

    def make_transposed(self, x, c, s):
        group = self.draw(st.sampled_from([1, 1 + (c % 2 == 0)]))
        name = self.add("ConvTranspose", [x, self.normal(c, 2, 2, 2)], group=group)
        return name, 2 * group, s + 1

    def make_batchnorm(self, x, c, s):
        variance = self.const(self.rng.uniform(0.5, 1.5, c).astype(f32))
        return self.add("BatchNormalization", [x, self.normal(c), self.normal(c), self.normal(c), variance]), c, s

    def make_activation(self, x, c, s):
        kinds = ["Relu", "Relu", "Sigmoid", "Identity", "Dropout", "LeakyRelu", "Softplus", "GlobalAveragePool"]
        kind = self.draw(st.sampled_from(kinds))
        return self.add(kind, [x]), c, 1 if kind == "GlobalAveragePool" else s

    def make_prelu(self, x, c, s):
        return self.add("PRelu", [x, self.normal(c, 1, 1)]), c, s

    def make_clip(self, x, c, s):
        low, high = self.draw(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)))
        if self.opset < 11 or self.draw(st.booleans()):  # else the bounds may be exchanged
            low, high = sorted((low, high))
        return self.set("Clip", x, 11, min=low, max=high), c, s

    def make_hard_swish(self, x, c, s):
        three, zero, six = (self.const(f32(value)) for value in (3, 0, 6))
        clipped = self.add("Min", [self.add("Max", [self.add("Add", [x, three]), zero]), six])
        first = x if self.draw(st.booleans()) else clipped
        divided = self.add("Div", [first, six])
        return self.add("Mul", [divided, clipped if first is x else x]), c, s

    def make_bound(self, x, c, s):
        return self.add(self.draw(st.sampled_from(["Min", "Max"])), [x, self.const(f32(0.25))]), c, s

    def make_affine(self, x, c, s):
        shape = self.draw(st.sampled_from([(), (1,), (1, 1, 1, 1), (c, 1, 1), (1, c, 1, 1), (1, 1, 1, s), (s,)]))
        value = self.const(self.rng.uniform(0.5, 1.5, shape).astype(f32))
        pair = [x, value] if self.draw(st.booleans()) else [value, x]
        return (
            self.add(
                self.draw(st.sampled_from(["Mul", "Add", "Sub", "Div"] if pair[0] == x else ["Mul", "Add", "Sub"])),
                pair,
            ),
            c,
            s,
        )

    def make_pad(self, x, c, s):
        first, last = self.draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (-1, 1)]))
        if s + first + last < 2:
            return None
        pads = [0, 0, first, first, 0, 0, last, last]
        value = self.draw(st.sampled_from([0.0, 0.0, 1.0, -np.inf]))
        if value == -np.inf:  # only what a pool reads, or there is nothing but NaN
            padded = self.set("Pad", x, 11, pads=pads, value=value)
            return self.add("MaxPool", [padded], kernel_shape=[3, 3]), c, s + first + last - 2
        return self.set("Pad", x, 11, pads=pads, **({"value": value} if value else {})), c, s + first + last

    def make_pool(self, x, c, s):
        kind = self.draw(st.sampled_from(["MaxPool", "AveragePool", "counted", "one"]))
        if kind == "one":
            return self.add("MaxPool", [x], kernel_shape=[1, 1]), c, s
        counted = {"count_include_pad": 1} if kind == "counted" else {}
        kind = "AveragePool" if kind == "counted" else kind
        return self.add(kind, [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], **counted), c, s

    def make_mean(self, x, c, s):
        return self.set("ReduceMean", x, 18, axes=[2, 3]), c, 1

    def make_views(self, x, c, s):
        views = [("Flatten", None), ("Reshape", [0, c, -1]), ("Reshape", [-1, c, s * s]), ("Reshape", [0, c, s, s])]
        for kind, shape in self.draw(st.lists(st.sampled_from(views), max_size=2)):
            x = self.add(kind, [x] if shape is None else [x, self.const(i64(shape))])
        return self.add("Reshape", [x, self.const(i64([self.draw(st.sampled_from([0, -1])), c, s, s]))]), c, s

    def make_by_shape(self, x, c, s):
        """Reshape by arithmetic on the shape, as exporters write it."""
        size, zero = self.add("Shape", [x]), self.const(i64([0]))
        batch = self.add("Gather", [size, zero], axis=0)
        wanted = self.add("Concat", [batch, self.const(i64([c, s, s]))], axis=0)
        return self.add("Reshape", [x, wanted]), c, s

    def make_gather(self, x, c, s):
        order = self.draw(st.permutations(range(c)))[: self.draw(st.integers(1, c))]
        return self.add("Gather", [x, self.const(i64(order))], axis=1), len(order), s

    def make_split(self, x, c, s):
        if c < 2:
            return None
        first = self.draw(st.integers(1, c - 1))
        parts = [f"t{len(self.nodes)}_{number}" for number in (0, 1)]
        held = {"split": [first, c - first]} if self.opset < 13 else {}
        inputs = [x] if held else [x, self.const(i64([first, c - first]))]
        self.nodes.append(onnx.helper.make_node("Split", inputs, parts, axis=1, **held))
        self.tensors.append((parts[0], first, s))
        return parts[1], c - first, s

    def make_if(self, x, c, s):
        """A body that reads what stands outside."""
        bodies = [
            onnx.helper.make_graph(
                [onnx.helper.make_node(kind, [x], [f"b{len(self.nodes)}_{kind}"])], kind, [],
                [onnx.helper.make_tensor_value_info(f"b{len(self.nodes)}_{kind}", 1, None)],
            )
            for kind in ("Relu", "Neg")
        ]  # fmt: skip
        condition = self.const(np.array(self.draw(st.booleans())))
        return self.add("If", [condition], then_branch=bodies[0], else_branch=bodies[1]), c, s

    def make_sum(self, x, c, s):
        fits = [name for name, channels, size in self.tensors if (channels, size) == (c, s)]
        return self.add("Add", [x, self.draw(st.sampled_from(fits))]), c, s

    def make_concat(self, x, c, s):
        name, more, _ = self.draw(st.sampled_from([item for item in self.tensors if item[2] == s]))
        return (self.add("Concat", [x, name], axis=1), c + more, s) if c + more <= 16 else None

    def make_halves(self, x, c, s):
        if c % 2:
            return None
        one = self.set("Slice", x, 10, starts=[0], ends=[c // 2], axes=[1])
        two = self.set("Slice", x, 10, starts=[c // 2], ends=[self.draw(st.sampled_from([c, 2**60]))], axes=[1])
        self.tensors.append((one, c // 2, s))
        return two, c // 2, s

    def make_shuffle(self, x, c, s):
        if c % 2:
            return None
        first = self.add("Reshape", [x, self.const(i64([0, 2, c // 2, s, s]))])
        turned = self.add("Transpose", [first], perm=[0, 2, 1, 3, 4])
        return self.add("Reshape", [turned, self.const(i64([0, c, s, s]))]), c, s

    def make_turn(self, x, c, s):
        turned = self.add("Transpose", [x], perm=[0, 2, 3, 1])
        return self.add("Transpose", [turned], perm=[0, 3, 1, 2]), c, s

    def model(self):
        ends = [self.tensors[-1], *self.draw(st.lists(st.sampled_from(self.tensors[1:] or self.tensors), max_size=2))]
        names = {name: (c, s) for name, c, s in ends}
        outputs = [
            onnx.helper.make_tensor_value_info(name, 1, ["N", c, s, s]) for name, (c, s) in names.items() if name != "x"
        ]
        given = onnx.helper.make_tensor_value_info("x", 1, ["N", 4, 8, 8])
        graph = onnx.helper.make_graph(self.nodes, "random", [given], outputs, self.weights)
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=9)


@st.composite
def networks(draw):
    builder = Builder(draw, draw(st.sampled_from([9, 11, 13, 17, 21])))
    for _ in range(draw(st.integers(1, 14))):
        builder.grow()
    if builder.tensors[-1][0] == "x":
        builder.tensors.append(builder.make_activation(*builder.tensors[-1]))
    return builder.model()


def check(made, folder, **options):
    source, result = folder / "source.onnx", folder / "result.onnx"
    onnx.save(made, source)
    report = optimize(source, result, **options)
    assert report.check.verdict == "equal", report.check
    assert not any(entry.rolled_back for entry in report.passes), report.passes
    assert report.after.nodes <= report.before.nodes
    after = onnx.load(result)
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == [value.name for value in made.graph.output]
    again = optimize(result, folder / "again.onnx", verify=False, **options)
    assert again.rewrites == 0, again.passes


@given(made=networks())
@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
def test_a_random_network(made, tmp_path):
    check(made, tmp_path)
