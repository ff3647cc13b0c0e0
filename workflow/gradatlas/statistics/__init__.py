"""Curves, MAD, RD and their intervals."""
