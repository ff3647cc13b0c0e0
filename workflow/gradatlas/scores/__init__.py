"""Scores of every sample of a training file on one model."""
