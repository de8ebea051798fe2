"""Mend a Q/DQ graph layer by layer on what each layer really reads: ranges by measured error, then biases.

Ranges    Each activation's grid is tried at several widths around what calibration saw, and takes the one with the
          least squared error on the values that the quantised network, mended up to here, feeds it. A value that is
          common (an even background, a padded border) so comes to lie on the grid.
Biases    b'_c = b_c + E[y_c] - E[y^_c]: what quantisation adds to the mean of an output channel is taken off the bias.
          y is the float layer's output on float inputs, y^ the quantised layer's; means over the images and positions.

Source: Nagel et al. 2019, «Data-Free Quantization Through Weight Equalization and Bias Correction», appendix D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from .grid import Grid, grid
from .net import Net
from .placement import Plan
from .walk import Walker

WIDTHS = tuple(round(0.96 + 0.01 * step, 2) for step in range(15))
VALUES = 1 << 17


@dataclass
class Refiner:
    """One walk over an emitted graph.

    Attributes:
        net: The graph with Q/DQ and float biases.
        plan: What is quantised, and which tensors share a scale.
        grids: Tensor -> its grid; updated as grids are chosen.
        ceilings: Root of tensors with one scale -> the largest value their grid may reach (a folded Clip's bound).
        means: Node name -> the float layer's mean for each output channel, (C,), on the same images.
        batch: The graph's batch size where it is fixed.
        widths: Factors to try on each grid; one factor of 1 leaves them.
    """

    net: Net
    plan: Plan
    grids: dict[str, Grid]
    ceilings: dict[str, float]
    means: dict[str, np.ndarray]
    batch: int | None = None
    widths: tuple[float, ...] = WIDTHS

    def run(self, images: np.ndarray) -> None:
        """Choose grids and correct biases, in the graph's order.

        Args:
            images: Float32 images, all of which are held in memory.
        """
        self.walker = Walker(self.net, images, self.batch)
        self.chosen: set[str] = set()
        self.sqnr_db: dict[str, float] = {}
        self.pairs = {node.name.removesuffix("/Q"): node for node in self.net.nodes if node.op_type == "QuantizeLinear"}
        self.walker.walk(self._choose, self._correct)

    def _choose(self, node: NodeProto) -> None:
        name = node.name.removesuffix("/Q")
        if node.op_type != "QuantizeLinear" or name not in self.grids or self.plan.root(name) in self.chosen:
            return
        root = self.plan.root(name)
        self.chosen.add(root)
        value = self.walker.values[node.input[0]].reshape(-1)
        sample = value[:: max(1, value.size // VALUES)].astype(np.float64)
        if root in self.ceilings:  # a Relu or Clip became this range: what it cuts off is no error
            sample = sample.clip(0, self.ceilings[root])
        old = self.grids[name]
        tried = [self._wider(old, width, name) for width in self.widths]
        best = min(tried, key=lambda at: _error(sample, at))
        signal = float(np.square(sample).mean())
        self.sqnr_db[name] = 10 * float(np.log10(max(signal, 1e-30) / max(_error(sample, best), 1e-30)))
        for other in [item for item in self.grids if self.plan.root(item) == root]:
            self.grids[other] = best
            self._set(other, best)

    def _wider(self, at: Grid, width: float, name: str) -> Grid:
        high = min(at.high * width, self.ceilings.get(self.plan.root(name), np.inf))
        return grid(at.low * width, high, at.signed)

    def _set(self, name: str, at: Grid) -> None:
        if name in self.pairs:
            _, scale, zero = self.pairs[name].input
            self.net.set_array(scale, np.array(at.scale, np.float32))
            self.net.set_array(zero, np.array(at.zero, np.int8 if at.signed else np.uint8))

    def _correct(self, node: NodeProto) -> None:
        if node.name not in self.means:
            return
        value = self.walker.values[node.output[0]]
        axes = tuple(axis for axis in range(value.ndim) if axis != 1)
        error = (self.means[node.name] - value.mean(axis=axes, dtype=np.float64)).astype(np.float32)
        self.net.set_array(node.input[2], self.net.arrays[node.input[2]] + error)
        self.walker.values[node.output[0]] = value + error.reshape(-1, *[1] * (value.ndim - 2))


def _error(sample: np.ndarray, at: Grid) -> float:
    low, high = (-128, 127) if at.signed else (0, 255)
    back = (np.clip(np.rint(sample / at.scale) + at.zero, low, high) - at.zero) * at.scale
    return float(np.square(back - sample).mean())
