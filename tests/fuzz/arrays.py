"""Arrays: every dtype, shape, layout and value, into a loaded model."""

import numpy as np

from edgesmith.runtime import load
from edgesmith.runtime.common import isolation
from fuzz.harness import Case
from support.bundles import colour_bundle

LIMITS = isolation.Limits(120, 1500 << 20)
CONTAINS = False
DTYPES = ("f4", "f8", "f2", "u1", "i1", "i2", "i4", "i8", "u8", "?", "c8", "c16", ">f4", "S3", "U3", "O", "M8[s]", "V4")
ODD = (
    None,
    7,
    1.5,
    "",
    "x" * 5000,
    b"bytes",
    {},
    [],
    [[]],
    [None],
    [1, 2],
    object(),
    {"input": 1},
    (),
    "\0",
    float("nan"),
)


def material(folder):
    """Bundles of the colour network, with a free batch and with a fixed one."""
    return [colour_bundle(folder / name / "colours", batch=batch).folder for name, batch in (("free", "N"), ("one", 1))]


def shape(rng):
    good = (int(rng.integers(0, 4)), 3, 16, 16)
    every = [
        good, (3, 16, 16), (16, 16, 3), (1, 16, 16, 3), (16, 16), (), (0,), (0, 3, 16, 16), (1, 3, 0, 16),
        (1, 3, 16, 17),
        (1, 4, 16, 16), (1, 1, 16, 16), (2, 3, 16, 16, 1), (1,) * 20, (5000,), (1, 3, 300, 200), (300, 200, 3),
        (1, 1, 3),
        (70, 3, 16, 16),
    ]  # fmt: skip
    return good if rng.integers(3) == 0 else every[rng.integers(len(every))]


def array(rng):
    """Return what was made, and the array."""
    dtype = np.dtype("f4" if rng.integers(2) else DTYPES[rng.integers(len(DTYPES))])
    dims = shape(rng)
    made = (rng.standard_normal(dims) * 100 if dims else np.asarray(rng.standard_normal())).astype("f8")
    try:
        with np.errstate(all="ignore"):
            made = np.abs(made).astype("i8").astype(dtype) if dtype.kind in "uUSMV" else made.astype(dtype)
    except (TypeError, ValueError):
        made = np.zeros(dims, dtype)
    made = np.asarray(made)
    label, made = WAYS[rng.integers(len(WAYS))](rng, made)
    return f"{label} {dtype.str} {made.ndim}d", made


def value(rng, made):
    if made.dtype.kind == "f" and made.size:
        made.reshape(-1)[rng.integers(made.size)] = rng.choice([np.nan, np.inf, -np.inf, 6e4])
    return "value", made


def strided(rng, made):
    return "strided", made[..., ::-1] if made.ndim else made


def transposed(rng, made):
    return "transposed", np.asfortranarray(made) if rng.integers(2) else made.T


def read_only(rng, made):
    made.flags.writeable = False
    return "read-only", made


def spread(rng, made):
    """Zero strides: many rows out of one."""
    if made.ndim == 0 or made.shape[0] != 1:
        return "plain", made
    return "spread", np.broadcast_to(made, (int(rng.choice([2, 1000, 100_000])), *made.shape[1:]))


def wrapped(rng, made):
    return "masked", np.ma.masked_array(made)


def unaligned(rng, made):
    raw = np.zeros(made.nbytes + 1, np.uint8)
    if made.dtype.hasobject:
        return "plain", made
    raw[1:] = np.frombuffer(made.tobytes(), np.uint8)
    return "unaligned", np.frombuffer(raw[1:].data, made.dtype).reshape(made.shape) if made.size else made


def plain(rng, made):
    return "plain", made


WAYS = (plain, value, strided, transposed, read_only, spread, wrapped, unaligned)


def case(rng, material, folder):
    bundle = material[rng.integers(len(material))]
    if rng.integers(12) == 0:
        thing = ODD[rng.integers(len(ODD))]
        label = f"odd {type(thing).__name__}"
    else:
        label, thing = array(rng)
    if rng.integers(6) == 0:
        label, thing = f"listed {label}", [thing] * int(rng.integers(0, 3))
    how = ("call", "run", "call")[rng.integers(3)]
    return Case(f"{how} {label}", lambda: answered(bundle, how, thing))


def answered(bundle, how, thing):
    """Give it to the model, and then something right: the model must have stayed usable."""
    with load(bundle, device="ort", precision="fp32", threads=1) as model:
        try:
            getattr(model, "__call__" if how == "call" else "run")(thing)
        finally:
            right = model.run(np.zeros((1, 3, 16, 16), np.float32))["output"]
            assert right.shape == (1, 3)
            assert not right.any()
