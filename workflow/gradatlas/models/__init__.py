"""Finding, checking and loading models and their projections; tokens; what a model writes."""
