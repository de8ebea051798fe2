"""`PYTHONPATH=tests python -m experiments.targets_table`: the table of docs/quantisation.md, from the targets' rows."""

from __future__ import annotations

import click

from edgesmith.optimize.quantize.targets import find_target, quantized_targets
from edgesmith.runtime import targets

ACTIVATIONS = {"symmetric": "S8, zero point 0", "u8": "U8, with a zero point", "s8": "S8, with a zero point"}


def columns(name: str) -> list[str]:
    """Return what the rows say of one target, in the order of HEADS."""
    row, form = targets.row(name), find_target(name)
    activations = ACTIVATIONS[form.activation_dtype]
    if form.zero_points_in_biases:
        activations += "; other zero points move into biases" + (", Pads and Adds" if form.explicit_padding else "")
    everything = "everything between two layers: additions, concatenations, pooling, reshapes, splits"
    scale = f"2^{form.least_scale.hex().split('p')[1]}, FP16's smallest normal number" if form.least_scale else "none"
    blocks = ", ".join(f"{count} with {flag}" if flag else f"else {count}" for flag, count in row.channel_blocks)
    return [
        row.what,
        ", ".join(row.precisions),
        ", ".join(row.backends),
        f"yes, {row.engine}" if row.engine else "no",
        str(row.place) if row.machines else "after FP32",
        activations,
        "limited (below)" if form.avoid_int16_saturation else "S8, one scale for each output channel",
        "INT32, scale s_x s_w" if form.integer_bias else "float",
        everything if form.quantize_outputs else "inputs of layers; the residual input of an addition",
        "folded into the range" if form.fold_relu else "left in the graph",
        "always" if form.free_channel_scales else "if SQNR is below 30 dB without them",
        "yes" if form.pad_channels else "no",
        scale,
        ", ".join(f"`{name}`" for name in row.passes) or "the generic ones",
        blocks or "1",
    ]


HEADS = (
    "runs in", "precisions", "backends", "engines", "place on its own CPU (FP32: 50)", "activations", "weights", "bias",
    "quantised", "Relu, Clip", "channel scales", "channels padded", "smallest scale", "passes besides", "channel block",
)  # fmt: skip


def table() -> str:
    """Return the Markdown table: a column for each target that has an INT8 form."""
    names = quantized_targets()
    head = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    lines = zip(HEADS, *map(columns, names), strict=True)
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)])


if __name__ == "__main__":
    click.echo(table())
