"""Coverage of the 95 % intervals by simulation: the shares of made-up studies whose interval holds the truth.

  python -m benchmarks.coverage --output benchmarks/coverage.csv [--runs 2000] [--draws 1000] [--only mean mad rd]

Made-up nuclear norms are log-normal, of mean CURVE exactly: a factor of the sample, common to all layers, whose log has
standard deviation .5 (moderate) or 1 (heavy), and one of sample and layer with .2 or .4. The two relations of a sample
share .64 of the common factor's log variance. A row of the output is one statistic, truth, spread, number of layers and
of samples: coverage of our interval and of the plain percentile one, the shares of runs with the truth below and above
ours, bias of the plain and of the corrected value, and the median lengths of both intervals.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import polars as pl

from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.statistics.estimates import curve_estimates, difference_estimates
from gradatlas.statistics.measures import mean_absolute_difference, relative_difference, segments

SPREADS = {"moderate": (0.5, 0.2), "heavy": (1.0, 0.4)}
SAMPLES = (20, 200)
LAYERS = (28, 7)


def curves(layers: int) -> dict[str, np.ndarray]:
    """True curves, by what their MAD is like."""
    at = np.arange(layers)
    return {
        "flat": np.ones(layers),
        "2 % zigzag": 1 + 0.02 * (at % 2),
        "8 % zigzag": 1 + 0.08 * (at % 2),
        "two jumps": 1 + 0.5 * (at == 1) + 0.5 * (at > layers - 3),
        "decay": 1 + 3 * np.exp(-at / 3) + 0.3 * np.sin(1.7 * at),
        "zigzag to three times": 1 + 2.0 * (at % 2),
    }


def differences(layers: int) -> dict[str, np.ndarray]:
    """True relative differences by layer."""
    at = np.arange(layers)
    return {
        "none": np.zeros(layers),
        "3 % up and down": 0.03 * (-1.0) ** at,
        "20 % in half the layers": np.where(at < layers // 2, 0.0, 0.2),
        "50 to 150 %": np.linspace(0.5, 1.5, layers),
    }


def norms(generator: np.random.Generator, curves: np.ndarray, common: np.ndarray, spreads) -> np.ndarray:
    """(samples, spreads, shapes, layers) of mean `curves`, (shapes, layers), all of the same draws.

    `common`: (samples, 1), the standardised log of the samples' own factors.
    """
    size, layer = np.array([SPREADS[spread] for spread in spreads]).T[..., None]
    log = size * common[..., None] + layer * generator.normal(size=(len(common), 1, curves.shape[-1]))
    return curves * np.exp(log - (size**2 + layer**2) / 2)[:, :, None]


# What can be looked at: the true curves or differences by number of layers. A mean is one layer's.
TRUTHS = {"mean": lambda layers: {"one layer": np.ones(1)}, "mad": curves, "rd": differences}


def trial(generator: np.random.Generator, what: str, truths: np.ndarray, spreads, count: int, draws: int, seed: int):
    """One study of each spread and shape of `truths`, (shapes, layers).

    Yields of each statistic its name and truth, (shapes,); value, corrected, low, high, and low and high of the
    percentiles, each (spreads, shapes).
    """
    common = generator.normal(size=(count, 1))
    if what == "rd":
        pair = [
            norms(generator, curves, 0.8 * common + 0.6 * generator.normal(size=(count, 1)), spreads)
            for curves in (np.ones_like(truths), 1 + truths)
        ]
        _, signed, absolute = difference_estimates(*pair, draws, seed, "coverage")
        drawn = relative_difference(*np.moveaxis(resampled_means(np.stack(pair, 1), draws, seed, "coverage"), 1, 0))
        yield "signed RD", truths.mean(-1), *_numbers(signed), *interval(drawn.mean(-1))[1:]
        yield "absolute RD", np.abs(truths).mean(-1), *_numbers(absolute), *interval(np.abs(drawn).mean(-1))[1:]
        return
    values = norms(generator, truths, common, spreads)
    mean, mad = curve_estimates(values, draws, seed, "coverage")
    drawn = resampled_means(values, draws, seed, "coverage")
    if what == "mean":
        value, low, high = (mean[key][..., 0] for key in ("value", "low", "high"))
        yield "mean", truths[:, 0], value, value, low, high, *interval(drawn[..., 0])[1:]
    else:
        for at, (name, (first, end)) in enumerate(segments(truths.shape[-1]).items()):
            # Of all layers the bare name.
            named = "MAD" if name == "all" else f"MAD, {name}"
            truth, resamples = (mean_absolute_difference(each[..., first:end]) for each in (truths, drawn))
            yield named, truth, *_numbers({key: ends[..., at] for key, ends in mad.items()}), *interval(resamples)[1:]


def _numbers(estimates: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    return (estimates[key] for key in ("value", "corrected", "low", "high"))


def coverage(
    runs: int, draws: int, samples=SAMPLES, layers=LAYERS, spreads=tuple(SPREADS), only=tuple(TRUTHS), seed: int = 0
) -> pl.DataFrame:
    """The table, one row per statistic and truth; `only`: of `TRUTHS`."""
    rows = []
    for what in only:
        for depth in layers if what != "mean" else [1]:
            shapes = TRUTHS[what](depth)
            truths = np.stack(list(shapes.values()))
            for count in samples:
                generator = np.random.default_rng([seed, depth, count])
                for run in range(runs):
                    for statistic, truth, *numbers in trial(generator, what, truths, spreads, count, draws, run):
                        for at in np.ndindex(len(spreads), len(shapes)):
                            named = statistic, list(shapes)[at[1]], spreads[at[0]], depth, count, truth[at[1]]
                            rows.append((*named, *(float(each[at]) for each in numbers)))
    names = ("truth", "value", "corrected", "low", "high", "percentile_low", "percentile_high")
    frame = pl.DataFrame(rows, schema=["statistic", "shape", "spread", "layers", "samples", *names], orient="row")
    truth = pl.col("truth")
    return frame.group_by("statistic", "shape", "spread", "layers", "samples", maintain_order=True).agg(
        truth.first(),
        pl.len().alias("runs"),
        truth.is_between("low", "high").mean().alias("coverage"),
        (truth < pl.col("low")).mean().alias("truth_below"),
        (truth > pl.col("high")).mean().alias("truth_above"),
        truth.is_between("percentile_low", "percentile_high").mean().alias("percentile_coverage"),
        (pl.col("value") - truth).mean().alias("bias"),
        (pl.col("corrected") - truth).mean().alias("corrected_bias"),
        (pl.col("high") - pl.col("low")).median().alias("length"),
        (pl.col("percentile_high") - pl.col("percentile_low")).median().alias("percentile_length"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="CSV file to write")
    parser.add_argument("--runs", type=int, default=2000, help="made-up studies for each row")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws of each")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="numbers of samples")
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS, help="numbers of layers")
    parser.add_argument("--only", nargs="+", choices=TRUTHS, default=list(TRUTHS), help="mean, mad, rd")
    given = parser.parse_args()
    table = coverage(given.runs, given.draws, given.samples, given.layers, only=given.only)
    table.write_csv(given.output, float_precision=4)


if __name__ == "__main__":
    main()
