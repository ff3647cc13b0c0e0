"""The metrics of a gradient matrix: columns of the spectra table, in its order (`spectra` computes them)."""

from typing import get_args

from gradatlas.study.settings import Metric

METRICS = get_args(Metric)
