"""Charts of the toys."""
