"""The reference workload: measured in every bench run, to separate a slower machine from a slower network.

It takes about a millisecond on one core: small matrix products that stay in the cache, exponentials, and a pass over
8 MB that does not. It measures the machine, not a network: networks differ in their mix of arithmetic and memory, so a
ratio calibrated by it is weaker evidence than two versions measured side by side.
"""

from collections.abc import Callable

import numpy as np


def setup() -> Callable[[], object]:
    """Return the workload as a call on seeded data."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((96, 32, 32), dtype=np.float32) for _ in range(2))
    values = rng.standard_normal(1 << 14, dtype=np.float32)
    large = np.ones(1 << 21, np.float32)

    def call() -> object:
        product = left @ right
        np.multiply(large, np.float32(1.0), out=large)
        return product.sum() + np.exp(values).sum()

    return call
