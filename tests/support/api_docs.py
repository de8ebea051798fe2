"""Write the API's pages from the docstrings; a warning is an error: `python tests/support/api_docs.py site`."""

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import edgesmith.runtime

MODULES = ("edgesmith", "!edgesmith.__main__")


def build(target: Path) -> int:
    """Write the pages and return how many there are."""
    for package in (edgesmith, edgesmith.runtime):
        for name in package.__all__:  # they are looked up lazily, which pdoc does not follow
            setattr(package, name, getattr(package, name))
    pdoc.render.configure(docformat="google", search=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=target)
    return len(list(target.rglob("*.html")))


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))} pages in {sys.argv[1]}\n")
