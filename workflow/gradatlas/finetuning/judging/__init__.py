"""Scores of free generations, and judgements of which of two is better."""
