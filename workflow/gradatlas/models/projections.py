"""The names of a decoder layer's projections."""

from typing import get_args

from gradatlas.study.settings import Projection

KNOWN = get_args(Projection)
ATTENTION, FEED_FORWARD = KNOWN[:4], KNOWN[4:]
