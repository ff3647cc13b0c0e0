"""What the second study takes, from its config and sheets alone: responses, disk, requests, tokens and money.

Counts are exact where no response is missing. Requests and tokens are upper bounds: texts are not known beforehand.
Of the disk, results/dynamics and the checkpoints are counted: not downloads; figures and statistics are some MB for a
model and seed.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from gradatlas.planning.estimates import Estimate, total
from gradatlas.planning.shapes import WIDTHS
from gradatlas.study.probe_types import REPHRASED, TYPES
from gradatlas.study.runs import Plan, due, snapshots, trained_pairs

#: Numbers that an optimiser keeps for each weight, in a checkpoint beside the weight itself.
MOMENTS = {"sgd": 0, "rmsprop": 1, "adamw": 2}
#: Bytes of a row of a table, measured on the miniature's (Parquet, compressed); of a response also so many a token.
ROWS = {"probes": 34, "dynamics": 63, "training": 40, "generations": 20, "scores": 5, "judgements": 14}
TOKEN = 2
#: What has a size that depends on the model.
KINDS = ("models", "checkpoints")
#: Tokens of a request without its texts, rounded up.
JUDGING, REPHRASING = 150, 80


def estimate(
    config: Mapping[str, Any], plan: Plan, learners: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, int]
) -> list[Estimate]:
    """Disk and requests of a checked `config`. `parameters`: of the models to finetune, where known."""
    dynamics, runs = config["dynamics"], [*plan.runs.values()]
    if not runs:
        return []
    watched, copies = [row for row in runs if row["watched"]], len(learners) * len(dynamics["seeds"])
    probed = dynamics["probes"] + dynamics["held_out_probes"]
    probes = probed * (len(TYPES) if plan.rephrases else len(TYPES) - len(REPHRASED))
    written = plan.rephrases == "written" and bool(config["generate"]["endpoint"])
    prompts = sum(prompts_of(row, dynamics) * len(_generated(row)) for row in watched)
    responses = prompts * dynamics["generate_draws"]
    evaluations = sum(len(_evaluated(row)) for row in watched)
    contests, judging = _contests(plan, dynamics)
    ranked = [row for row in runs if row["negatives"] == "on_policy" and dynamics["judge"] == "endpoint"]
    ranking = 2 * sum(row["steps"] * row["batch_size"] for row in ranked)
    judge = (JUDGING + dynamics["max_length"] + dynamics["max_new_tokens"], config["generate"]["max_tokens"])
    judging = judging if dynamics["judge"] == "endpoint" else 0

    def table(stage: str, name: str, what: str, count: int, more: int = 0) -> Estimate:
        size = copies * count * (ROWS[name] + more)
        return Estimate(stage=stage, what=what, count=copies * count, kept=size, written=size)

    def asked(stage: str, what: str, requests: int, tokens: tuple[int, int]) -> Estimate:
        return requested(config["generate"], stage, what, requests, tokens)

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
    return [row for row in rows if row.count]


def requested(generate: Mapping[str, Any], stage: str, what: str, requests: int, tokens: tuple[int, int]) -> Estimate:
    """A row of requests to the endpoint, each of at most so many `tokens` read and written."""
    read, answered = (requests * each for each in tokens)
    prices = generate["input_price"], generate["output_price"]
    cost = None if None in prices else (read * prices[0] + answered * prices[1]) / 1e6
    asked = {"requests": requests, "tokens_in": read, "tokens_out": answered, "cost": cost}
    return Estimate(stage=stage, what=what, count=requests, **asked)


def tokens_of(config: Mapping[str, Any], row: Mapping[str, Any], length: float | None = None) -> float:
    """Tokens that a run reads, at most, in units of a pass with frozen weights (4 FLOP a weight).

    `length`: tokens of a prompt and a response on average, where they are known; else each fills the window.
    An update has 6 FLOP a weight and token, and 2 more for the reference model of a loss on pairs; evaluating and
    decoding have 2.
    """
    dynamics, pairs = config["dynamics"], row["loss"] != "sft"
    longest = min(dynamics["max_length"], length or dynamics["max_length"])
    written = longest + dynamics["max_new_tokens"]
    probed = len(TYPES) * (dynamics["probes"] + dynamics["held_out_probes"])
    updates = row["steps"] * row["batch_size"] * (2 if pairs else 1)
    units = updates * longest * (2 if pairs else 1.5)
    if row["negatives"] != "off_policy":
        units += updates * written / 2
    if row["watched"]:
        answers = prompts_of(row, dynamics) * dynamics["generate_draws"] * len(_generated(row))
        units += (probed * longest * len(_evaluated(row)) + answers * written) / 2
    return units


def sizes(learners: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Parameters of the models to finetune, of those whose row has them."""
    return {name: row["parameters"] for name, row in learners.items() if row["parameters"]}


def _weights(runs, dynamics, learners, parameters) -> list[Estimate]:
    """Models at the end of runs and along them, and checkpoints; of LoRA as of all weights, which is too much."""
    seeds, every = len(dynamics["seeds"]), dynamics["checkpoint_every"]
    sizes = [parameters.get(name, 0) * WIDTHS[row["dtype"]] for name, row in learners.items()]
    # Of each run, the states that it saves, and a state's size in models.
    saved = [(_saved(len(_evaluated(row)), every), 1 + MOMENTS[row["optimiser"]]) for row in runs]
    ends = sum(1 + len(snapshots(row, dynamics["kernels"])) for row in runs)
    models = seeds * ends * sum(sizes)
    states = seeds * sum(sizes) * sum(number * width for number, width in saved)
    # The older of two is deleted once the newer one is complete.
    newest = 2 * max(sizes) * max(width for _, width in saved)
    counts = seeds * len(sizes) * ends, seeds * len(sizes) * sum(number for number, _ in saved)
    if not all(sizes):
        unknown = {"stage": "finetune", "kept": None, "temporary": None, "written": None}
        return [Estimate(what=what, count=count, **unknown) for what, count in zip(KINDS, counts, strict=True)]
    kept, temporary = (models, 0) if dynamics["keep_models"] else (0, models)
    return [
        Estimate(stage="finetune", what=KINDS[0], count=counts[0], kept=kept, temporary=temporary, written=models),
        Estimate(stage="finetune", what=KINDS[1], count=counts[1], temporary=newest, written=states),
    ]


def _saved(evaluations: int, every: int) -> int:
    """Checkpoints of a run: at the first evaluation, at every so many, and at the last."""
    last = evaluations - 1
    return last // every + 1 + (last % every > 0)


def _evaluated(row: Mapping[str, Any]) -> list[int]:
    return due(row["steps"], row["evaluate_every"])


def _generated(row: Mapping[str, Any]) -> list[int]:
    return due(row["steps"], row["generate_every"])


def prompts_of(row: Mapping[str, Any], dynamics: Mapping[str, Any]) -> int:
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


def total_note(rows: Sequence[Estimate]) -> list[str]:
    """The total in a line where an endpoint will be asked; else nothing."""
    found = total(rows)
    if not found.requests:
        return []
    cost = "" if found.cost is None else f", a cost of {found.cost:,.2f}"
    return [
        f"the second study sends the endpoint at most {found.requests:,} requests, {found.tokens_in:,} tokens read and "
        f"{found.tokens_out:,} written{cost}; for details and disk: snakemake -- plan"
    ]
