"""Learning dynamics: how one update on a response moves the belief in others; finetuning, watched by probes."""
