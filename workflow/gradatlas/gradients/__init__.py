"""Exact spectra of per-sample weight gradients, from their two small factors."""
