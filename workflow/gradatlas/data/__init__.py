"""Samples, responses and pairs: read, built, audited."""
