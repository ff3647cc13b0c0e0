"""A row of the plan, sums of rows, and how they are printed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from gradatlas.planning.throughput import Rate

Number = float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one stage takes for one thing, all its jobs together; None: unknown.

    `count`: samples, responses, ... `tokens`: read, exactly or at most (`bound`). `passes`, `spectra`: FLOP. `hours`:
    of one GPU or CPU core (`unit`). `memory`, `gpu_memory`: bytes of one job; `gpu_least`: of each of its GPUs at
    least, for its weights, and its longest sample where that is known. `download`: bytes from a hub. `kept`:
    bytes on disk at the end. `temporary`: bytes that are deleted on the way; of models all of them, as if none were
    deleted before the last run, of checkpoints those of one run. `written`: all bytes written. `requests`: to the
    endpoint, at most, without repeated tries. `tokens_in`, `tokens_out`: of these, at most. `cost`: of these, at the
    prices in the config.
    """

    stage: str
    what: str
    count: int | None = 0
    jobs: int = 0
    tokens: int | None = 0
    bound: bool = False
    passes: Number = 0
    spectra: Number = 0
    hours: Number = 0
    unit: str = ""
    memory: Number = 0
    gpu_memory: Number = 0
    gpu_least: Number = 0
    download: Number = 0
    kept: Number = 0
    temporary: Number = 0
    written: Number = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: Number = None


def total(rows: Sequence[Estimate]) -> Estimate:
    """The sums; memory is the most of one job, and `count`, which counts different things, 0."""
    names = ("jobs", "tokens", "passes", "spectra", "download", "kept", "temporary", "written")
    sums = {name: _sum(getattr(row, name) for row in rows) for name in (*names, "requests", "tokens_in", "tokens_out")}
    most = {name: max((getattr(row, name) or 0 for row in rows), default=0) for name in ("memory", "gpu_memory")}
    costs = [row.cost for row in rows if row.requests]
    cost = _sum(costs) if costs else None
    return Estimate(stage="total", what="", **sums, **most, cost=cost, bound=any(row.bound for row in rows))


def time_lines(rows: Iterable[Estimate], rates: Mapping[str, Rate]) -> list[str]:
    """The hours of each unit that rows use, and the rates that they were made with."""
    by_unit: dict[str, list[Estimate]] = {}
    for row in rows:
        if row.unit:
            by_unit.setdefault(row.unit, []).append(row)
    found = []
    for unit, each in by_unit.items():
        sums, rate = _sum(row.hours for row in each), rates[unit]
        most = "at most " if sums is not None and any(row.bound for row in each) else ""
        found.append(
            f"{most}{'unknown' if sums is None else f'{sums:,.3g}'} {unit}-hours, at {rate.passes:.3g} TFLOP/s "
            f"of passes and {rate.spectra:.3g} of spectra on one {unit} ({rate.source})"
        )
    return found


def _sum(values: Iterable[Number]) -> Number:
    found = [*values]
    return None if None in found else sum(found)


# Printing -------------------------------------------------------------------------------------------------------------


def lines(rows: Sequence[Estimate]) -> list[str]:
    """The rows as aligned tables, with a total each: work, disk and network, requests. Empty ones are left out."""
    found = []
    rows = _by_model(rows)
    for heads, cells in (
        (
            ("jobs on models", "", "jobs", "samples", "tokens", "passes", "spectra", "hours", "memory", "GPU memory"),
            _work,
        ),
        (("disk and network", "", "count", "download", "kept", "temporary", "written"), _disk),
        (("endpoint", "", "requests", "tokens in", "out", "cost"), _requests),
    ):
        table = [row for row in rows if any(cells(row))]
        if table:
            found += ["", *_aligned([heads, *((row.stage, row.what, *cells(row)) for row in [*table, total(table)])])]
    return found[1:]


def _by_model(rows: Sequence[Estimate]) -> list[Estimate]:
    """The rows, those of one stage and model together: a study has dozens of datasets."""
    groups: dict[tuple[str, str], list[Estimate]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.what.partition(", ")[0] if row.unit else row.what), []).append(row)
    found = []
    for (stage, name), each in groups.items():
        summed = replace(total(each), stage=stage, count=_sum(row.count for row in each), unit=each[0].unit)
        time = _sum(row.hours for row in each)
        what = f"{name}, {len(each)} datasets"
        found.append(replace(summed, what=what, hours=time) if each[1:] else each[0])
    return found


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(widths[at]) if at < 2 else cell.rjust(widths[at]) for at, cell in enumerate(row)).rstrip()
        for row in cells
    ]


def _work(row: Estimate) -> tuple[str, ...]:
    if not row.jobs:
        return ("",) * 8
    numbers = [_counted(row.tokens), *(_scaled(each, "FLOP") for each in (row.passes, row.spectra))]
    numbers.append("" if not row.unit else "unknown" if row.hours is None else f"{row.hours:,.3g} {row.unit}-h")
    return (
        f"{row.jobs:,}",
        _counted(row.count),
        *(f"<= {each}" if row.bound and each not in ("", "unknown") else each for each in numbers),
        *map(in_bytes, (row.memory, row.gpu_memory)),
    )


def _disk(row: Estimate) -> tuple[str, ...]:
    places = [*map(in_bytes, (row.download, row.kept, row.temporary, row.written))]
    return (_counted(row.count) if any(places) else "", *places)


def _requests(row: Estimate) -> tuple[str, ...]:
    cost = "" if not row.requests else "no price" if row.cost is None else f"{row.cost:,.2f}"
    return (*map(_counted, (row.requests, row.tokens_in, row.tokens_out)), cost)


def _counted(count: Number) -> str:
    return "unknown" if count is None else f"{ceil(count):,}" if count else ""


def in_bytes(count: Number) -> str:
    """Bytes as readers write them: ``1.2 TB``."""
    return _scaled(count, "B")


def _scaled(count: Number, unit: str) -> str:
    if not count:
        return "unknown" if count is None else ""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if count < 1000:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:,.3g} E{unit}"
