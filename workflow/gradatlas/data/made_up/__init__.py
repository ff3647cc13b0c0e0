"""The made-up data of the miniature."""
