"""Texts that a model writes: from an endpoint or a local model, kept one by one, whatever they are for."""
