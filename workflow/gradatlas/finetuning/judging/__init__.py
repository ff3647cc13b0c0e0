"""Free generations, told of: whether they repeat themselves, whose answer they give, and which of two is better."""
