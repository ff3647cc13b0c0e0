"""The names of a decoder layer's projections."""

ATTENTION = ("q", "k", "v", "o")
FEED_FORWARD = ("gate", "up", "down")
KNOWN = ATTENTION + FEED_FORWARD
