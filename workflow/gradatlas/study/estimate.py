"""What the second study takes, from its config and sheets alone: responses, disk, requests, tokens and money.

Counts are exact where no response is missing. Requests and tokens are upper bounds: texts are not known beforehand.
Of the disk, results/dynamics and the checkpoints are counted: not downloads; figures and statistics are some MB for a
model and seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from fractions import Fraction
from typing import Any

from gradatlas.study.probe_types import REPHRASED, TYPES
from gradatlas.study.runs import Plan, due, trained_pairs

WIDTHS = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
#: Numbers that an optimiser keeps for each weight, in a checkpoint beside the weight itself.
MOMENTS = {"sgd": 0, "rmsprop": 1, "adamw": 2}
#: Bytes of a row of a table, measured on the miniature's (Parquet, compressed); of a response also so many a token.
ROWS = {"probes": 34, "dynamics": 63, "training": 40, "generations": 20, "scores": 5, "judgements": 14}
TOKEN = 2
#: What has a size that depends on the model.
KINDS = ("models", "checkpoints")
#: Tokens of a request without its texts, rounded up.
JUDGING, REPHRASING = 150, 80


@dataclass(frozen=True)
class Estimate:
    """What one stage makes of one kind, over all models and seeds; None: unknown.

    `kept`: bytes on disk at the end. `temporary`: bytes that are deleted on the way; of models all of them, as if none
    were deleted before the last run, of checkpoints those of one run. `written`: all bytes written. `requests`: to the
    endpoint, at most, without repeated tries. `tokens_in` and `tokens_out`: of these, at most. `cost`: of these, at the
    prices in the config.
    """

    stage: str
    what: str
    count: int
    kept: int | None = 0
    temporary: int | None = 0
    written: int | None = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None


def estimate(
    config: Mapping[str, Any], plan: Plan, learners: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, int]
) -> list[Estimate]:
    """The rows of a checked `config`, and their total. `parameters`: of the models to finetune, where known."""
    dynamics, runs = config["dynamics"], [*plan.runs.values()]
    if not runs:
        return []
    watched, copies = [row for row in runs if row["watched"]], len(learners) * len(dynamics["seeds"])
    probed = dynamics["probes"] + dynamics["held_out_probes"]
    probes = probed * (len(TYPES) if plan.rephrases else len(TYPES) - len(REPHRASED))
    written = plan.rephrases == "written" and bool(config["generate"]["endpoint"])
    prompts = sum(_prompts(row, dynamics) * len(_generated(row)) for row in watched)
    responses = prompts * dynamics["generate_draws"]
    evaluations = sum(len(_evaluated(row)) for row in watched)
    contests, judging = _contests(plan, dynamics)
    ranked = [row for row in runs if row["negatives"] == "on_policy" and dynamics["judge"] == "endpoint"]
    ranking = 2 * sum(row["steps"] * row["batch_size"] for row in ranked)
    judge = (JUDGING + dynamics["max_length"] + dynamics["max_new_tokens"], config["generate"]["max_tokens"])
    judging = judging if dynamics["judge"] == "endpoint" else 0

    def table(stage: str, name: str, what: str, count: int, more: int = 0) -> Estimate:
        size = copies * count * (ROWS[name] + more)
        return Estimate(stage, what, copies * count, size, 0, size)

    def asked(stage: str, what: str, requests: int, tokens: tuple[int, int]) -> Estimate:
        read, answered = (requests * each for each in tokens)
        cost = _cost(config["generate"], read, answered)
        return Estimate(stage, what, requests, requests=requests, tokens_in=read, tokens_out=answered, cost=cost)

    rows = [
        asked("write_rephrases", "rephrases", written * len(dynamics["seeds"]) * probed * len(REPHRASED),
              (REPHRASING + dynamics["max_length"], judge[1])),
        table("build_probes", "probes", "probes", probes),
        *_weights(runs, dynamics, learners, parameters),
        table("finetune", "training", "updates", sum(row["steps"] for row in runs)),
        table("finetune", "dynamics", "log-probabilities of probes", probes * evaluations),
        table("finetune", "generations", "free responses", responses, TOKEN * dynamics["max_new_tokens"]),
        asked("finetune", "rankings of own samples, both orders", copies * ranking, judge),
        table("score_generations", "scores", "scores", responses),
        table("judge_generations", "judgements", "judgements", contests),
        asked("judge_generations", "judgements, both orders", copies * judging, judge),
    ]  # fmt: skip
    rows = [row for row in rows if row.count]
    return [*rows, _total(rows)]


def sizes(learners: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Parameters of the models to finetune, of those whose row has them."""
    return {name: row["parameters"] for name, row in learners.items() if row["parameters"]}


def _weights(runs, dynamics, learners, parameters) -> list[Estimate]:
    """Models at the end of runs, and checkpoints; of LoRA as if all weights were trained, which is too much."""
    seeds, every = len(dynamics["seeds"]), dynamics["checkpoint_every"]
    sizes = [parameters.get(name, 0) * WIDTHS[row["dtype"]] for name, row in learners.items()]
    # Of each run, the states that it saves, and a state's size in models.
    saved = [(_saved(len(_evaluated(row)), every), 1 + MOMENTS[row["optimiser"]]) for row in runs]
    models = seeds * len(runs) * sum(sizes)
    states = seeds * sum(sizes) * sum(number * width for number, width in saved)
    # The older of two is deleted once the newer one is complete.
    newest = 2 * max(sizes) * max(width for _, width in saved)
    counts = seeds * len(sizes) * len(runs), seeds * len(sizes) * sum(number for number, _ in saved)
    if not all(sizes):
        return [Estimate("finetune", what, count, None, None, None) for what, count in zip(KINDS, counts, strict=True)]
    kept = (models, 0) if dynamics["keep_models"] else (0, models)
    return [
        Estimate("finetune", KINDS[0], counts[0], *kept, models),
        Estimate("finetune", KINDS[1], counts[1], 0, newest, states),
    ]


def _saved(evaluations: int, every: int) -> int:
    """Checkpoints of a run: at the first evaluation, at every so many, and at the last."""
    last = evaluations - 1
    return last // every + 1 + (last % every > 0)


def _evaluated(row: Mapping[str, Any]) -> list[int]:
    return due(row["steps"], row["evaluate_every"])


def _generated(row: Mapping[str, Any]) -> list[int]:
    return due(row["steps"], row["generate_every"])


def _prompts(row: Mapping[str, Any], dynamics: Mapping[str, Any]) -> int:
    """Prompts that a run answers at one step: of those trained on, and of those held out."""
    asked = dynamics["generate_prompts"]
    return min(asked, trained_pairs(row, dynamics)) + min(asked, dynamics["held_out"])


def _contests(plan: Plan, dynamics: Mapping[str, Any]) -> tuple[int, int]:
    """Contests of one model and seed, and requests of a judge that is asked about each two responses once.

    Runs that start where others ended have the same responses; equal responses are a tie that nobody is asked about.
    """
    prompts = min(dynamics["generate_prompts"], dynamics["held_out"]) * dynamics["generate_draws"]
    watched = {name: plan.runs[name] for name in plan.watched} if dynamics["judge"] else {}
    count, asked = 0, set()
    for name, row in watched.items():
        for other in (other for other in row["baseline"] if other in watched):
            ours, theirs = ({Fraction(step, each["steps"]): step for step in _generated(each)}
                            for each in (row, watched[other]))  # fmt: skip
            for share in ours.keys() & theirs.keys():
                count += prompts
                asked.add(frozenset({_origin(name, ours[share], plan.runs), _origin(other, theirs[share], plan.runs)}))
    return count, 2 * prompts * sum(len(each) > 1 for each in asked)


def _origin(run: str, step: int, runs: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """The run and step whose model a run has at a step: before its first update, the one that it starts from."""
    while step == 0 and run:
        run = runs[run]["init"]
        step = runs[run]["steps"] if run else 0
    return run, step


def _cost(generate: Mapping[str, Any], read: int, answered: int) -> float | None:
    """None without both prices."""
    prices = generate["input_price"], generate["output_price"]
    return None if None in prices else (read * prices[0] + answered * prices[1]) / 1e6


def _sum(values: Iterable[int | None]) -> int | None:
    found = [*values]
    return None if None in found else sum(found)


def _total(rows: Sequence[Estimate]) -> Estimate:
    """The sums; of `count`, which counts different things, 0."""
    sums = {each.name: _sum(getattr(row, each.name) for row in rows) for each in fields(Estimate)[3:-1]}
    costs = [row.cost for row in rows if row.requests]
    return Estimate("total", "", 0, **sums, cost=None if None in costs or not costs else sum(costs))


# Writing --------------------------------------------------------------------------------------------------------------


def lines(rows: Sequence[Estimate]) -> list[str]:
    """The rows as an aligned table."""
    cells = [["stage", "what", "count", "kept", "temporary", "written", "requests", "tokens in", "out", "cost"]]
    cells += [_cells(row) for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(widths[at]) if at < 2 else cell.rjust(widths[at]) for at, cell in enumerate(row)).rstrip()
        for row in cells
    ]


def _cells(row: Estimate) -> list[str]:
    stage, what, count, *places = astuple(row)[:6]
    asked = [f"{each:,}" if each else "" for each in (row.requests, row.tokens_in, row.tokens_out)]
    cost = "" if not row.requests else "no price" if row.cost is None else f"{row.cost:,.2f}"
    return [stage, what, f"{count:,}" if count else "", *map(in_bytes, places), *asked, cost]


def in_bytes(count: int | None) -> str:
    """Bytes as readers write them: ``1.2 TB``."""
    if not count:
        return "unknown" if count is None else ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def total_note(rows: Sequence[Estimate]) -> list[str]:
    """The total in a line where an endpoint will be asked; else nothing."""
    if not rows or not rows[-1].requests:
        return []
    total = rows[-1]
    cost = "" if total.cost is None else f", a cost of {total.cost:,.2f}"
    return [
        f"the second study sends the endpoint at most {total.requests:,} requests, {total.tokens_in:,} tokens read and "
        f"{total.tokens_out:,} written{cost}; for details and disk: snakemake -- estimate"
    ]
