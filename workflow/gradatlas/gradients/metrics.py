"""The metrics of a gradient matrix: columns of the spectra table, in its order (`spectra` computes them)."""

METRICS = (
    "nuclear_norm", "sigma_max", "sigma_min", "frobenius_norm", "mean", "max", "min", "effective_rank", "sigma_ratio"
)  # fmt: skip
