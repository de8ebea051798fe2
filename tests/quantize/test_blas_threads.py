"""One thread of linear algebra while layers are mended, as many as before afterwards."""

import numpy as np
import pytest

from edgesmith.optimize.quantize.weights import blas_threads
from edgesmith.optimize.quantize.weights.blas_threads import one_blas_thread


class Library:
    count = 5

    def scipy_openblas_get_num_threads64_(self):
        return self.count

    def scipy_openblas_set_num_threads64_(self, count):
        self.count = count


def test_the_number_of_threads_is_one_inside_and_as_before_behind(monkeypatch):
    library = Library()
    monkeypatch.setattr(blas_threads, "_openblas", lambda: library)
    with one_blas_thread():
        assert library.count == 1
    assert library.count == 5
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert library.count == 5


def test_another_blas_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(blas_threads, "_openblas", lambda: None)
    with one_blas_thread():
        assert np.allclose(np.linalg.solve(np.eye(2), np.ones(2)), 1)


def test_numpys_own_openblas_is_asked_where_its_wheel_brings_one():
    library = blas_threads._openblas()
    if library is None:
        pytest.skip("this NumPy has another BLAS")
    before = library.scipy_openblas_get_num_threads64_()
    with one_blas_thread():
        assert library.scipy_openblas_get_num_threads64_() == 1
    assert library.scipy_openblas_get_num_threads64_() == before
