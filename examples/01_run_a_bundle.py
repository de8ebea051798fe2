"""Load a bundle and classify the digits that are part of the package: python examples/01_run_a_bundle.py BUNDLE."""

import sys

from edgesmith.runtime import datasets, load

with load(sys.argv[1]) as model:
    print(model.why())
    data = datasets.load("digits", "test").head(5)
    for image, label in zip(data.images, data.labels, strict=True):
        best = model(image).top(1)[0]
        print(f"a {label} is seen as {best.label} with probability {best.probability:.2f}")
