"""The figures of the toys: one module a toy, one that draws them all."""
