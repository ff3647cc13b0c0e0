"""The science, in rooms that do not reach back up the flow of the data."""
