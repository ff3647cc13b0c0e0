"""Gradatlas: what a piece of fine-tuning data does to each layer of a language model."""
