"""Learning dynamics: finetuning, with log-probabilities of probes along the way."""
