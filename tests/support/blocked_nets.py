"""Tiny networks whose parts stand between ONNX Runtime's blocked convolutions; b is its block on this machine."""

import numpy as np

from support.graphs import model

SIDE = 6
SCALE = "p = GlobalAveragePool(c) q = Conv(p, squeeze) r = Relu(q) s = Conv(r, excite) t = Sigmoid(s) m = Mul(c, t)"
LAST = "y = Conv(m, last)"


def net(body, channels, *, batch=1, outputs="", inner=8, mid=None, parts=None, weights=None):
    """Return `c = Conv(x, first)`, a body that makes m, and `y = Conv(m, last)`.

    Args:
        body: Nodes between the two; `parts` gives Convs `one` and `two` more inputs c1, c2 of these channels.
        channels: Of c.
        batch: Of the input (batch, 3, 6, 6).
        outputs: More graph outputs, by name, all of c's shape.
        inner: Channels that a squeeze leaves.
        mid: Channels of m, those of c where left out.
        parts: Channels of two more Convs of x.
        weights: More constants.
    """
    mid = channels if mid is None else mid
    extra = ", ".join(f"float[{batch},{channels},{SIDE},{SIDE}] {name}" for name in outputs.split())
    more = "".join(f"c{number} = Relu(k{number}) " for number in (1, 2)) if parts else ""
    more = ("k1 = Conv(x, one) k2 = Conv(x, two) " + more) if parts else ""
    found = {
        "first": (channels, 3, 1, 1), "last": (16, mid, 1, 1), "bias": (channels,),
        "squeeze": (inner, channels, 1, 1), "excite": (channels, inner, 1, 1), **(weights or {}),
    }  # fmt: skip
    if parts:
        found |= {"one": (parts[0], 3, 1, 1), "two": (parts[1], 3, 1, 1)}
    text = f"""(float[{batch},3,{SIDE},{SIDE}] x) => (float[{batch},16,{SIDE},{SIDE}] y{", " + extra if extra else ""})
      {{ c = Conv(x, first, bias) {more}{body} {LAST} }}"""
    used = {
        name: value
        for name, value in found.items()
        if name in text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    return model(text, used)


def random_net(rng, block):
    """Return a random small CNN: squeeze-excite, activations, Split, Concat and residuals at random channels."""
    batch, channels = int(rng.integers(1, 3)), int(rng.choice([block, 2 * block, block + 4, 2 * block + 4, block // 2]))
    weights = {"w": (channels, 3, 3, 3), "bias": (channels,)}
    body, last, number = "a0 = Conv<pads = [1, 1, 1, 1]>(x, w, bias)", "a0", 0
    for step in range(int(rng.integers(2, 6))):
        kind = str(rng.choice(["scale", "act", "split", "concat", "residual", "conv", "out"]))
        here, number = f"a{number + 1}", number + 1
        body, weights, channels = _step(rng, kind, body, weights, channels, last, here, step, block)
        last = here
    weights["end"] = (16, channels, 1, 1)
    shape = f"float[{batch},16,8,8]"
    text = f"(float[{batch},3,8,8] x) => ({shape} y) {{ {body} y = Conv({last}, end) }}"
    return model(text, weights, seed=int(rng.integers(1 << 30)))


def _step(rng, kind, body, weights, channels, last, here, step, block):
    name = f"s{step}"
    if kind == "scale":
        inner = int(rng.choice([4, 8, block]))
        weights |= {f"{name}d": (inner, channels, 1, 1), f"{name}u": (channels, inner, 1, 1)}
        body += f" {name}p = GlobalAveragePool({last}) {name}q = Conv({name}p, {name}d) {name}r = Relu({name}q)"
        body += f" {name}t = Conv({name}r, {name}u) {name}v = HardSigmoid({name}t) {here} = Mul({last}, {name}v)"
    elif kind == "act":
        op = str(rng.choice(["HardSwish", "Sigmoid", "Elu", "Abs", "Exp", "Softplus"]))
        body += f" {name}t = Tanh({last}) {here} = {op}({name}t)"
    elif kind == "split" and channels % 2 == 0:
        half = channels // 2
        weights |= {f"{name}a": (half, half, 1, 1)}
        body += f" {name}l, {name}r = Split<axis = 1, num_outputs = 2>({last}) {name}m = Conv({name}l, {name}a)"
        body += f" {here} = Concat<axis = 1>({name}m, {name}r)"
    elif kind == "concat":
        more = int(rng.choice([4, block]))
        weights |= {f"{name}c": (more, channels, 1, 1)}
        body += f" {name}m = Conv({last}, {name}c) {here} = Concat<axis = 1>({last}, {name}m)"
        channels += more
    elif kind == "residual":
        weights |= {f"{name}w": (channels, channels, 1, 1)}
        body += f" {name}m = Conv({last}, {name}w) {name}n = Abs({name}m) {here} = Add({name}n, {last})"
    else:
        made = int(rng.choice([block, 2 * block, block + 4]))
        weights |= {f"{name}w": (made, channels, 1, 1)}
        body, channels = f"{body} {here} = Conv({last}, {name}w)", made
    return body, {key: _tame(value) for key, value in weights.items()}, channels


def _tame(value):
    """Weights that keep activations near one."""
    if not isinstance(value, tuple):
        return value
    rng = np.random.default_rng(sum(value))
    return (rng.standard_normal(value) / max(1.0, np.sqrt(np.prod(value[1:])))).astype(np.float32)
