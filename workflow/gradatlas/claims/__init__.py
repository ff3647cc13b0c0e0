"""Claims of the studies, and controls beside them: measures, ability, one rule for every verdict."""
