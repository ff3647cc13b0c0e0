"""Coverage of the claims' 95 % intervals of ratios, by simulation: lognormal samples of 12 layers, 300 draws, 400 runs.

python -m benchmarks.claims
"""

import numpy as np

from gradatlas.claims.estimates import RATIO, Student, resampled
from gradatlas.statistics.measures import mean_absolute_difference

LAYERS, RUNS = 12, 400
JAGGED = 1 + 0.5 * (np.arange(LAYERS) % 2)
FLAT = 1 + 0.02 * (np.arange(LAYERS) % 2)
CASES = {
    "sizes, heavy tails": (np.ones(LAYERS), np.ones(LAYERS), 1.0, 1.0, lambda curves: curves.mean(-1)),
    "MAD, clear of noise": (5 * JAGGED, JAGGED, 0.5, 0.1, mean_absolute_difference),
    "MAD, the smaller in noise": (5 * JAGGED, FLAT, 0.5, 0.1, mean_absolute_difference),
}


def main() -> None:
    random = np.random.default_rng(0)
    for name, (one, other, of_sample, of_layer, statistic) in CASES.items():
        for n in (25, 100):
            hits = 0
            for run in range(RUNS):
                samples = [
                    curve * np.exp(of_sample * random.normal(size=(n, 1)) + of_layer * random.normal(size=(n, LAYERS)))
                    for curve in (one, other)
                ]
                first, second = map(statistic, resampled(samples, "", 300, run))
                low, high = Student.of_draws(first / second, RATIO, n).interval
                hits += low <= statistic(one) / statistic(other) <= high
            print(f"{name}, n = {n}: {hits / RUNS:.3f}")


if __name__ == "__main__":
    main()
