"""What the studies claim, and what the controls say to it: one function a claim, one rule for every verdict."""
