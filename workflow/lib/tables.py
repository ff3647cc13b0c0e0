"""The tables' columns, and one way to write and read them (Parquet, whole or not at all).

Metadata hold deterministic facts only, so that the same numbers are the same bytes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from workflow.lib.checked import open_parquet, parquet_writer
from workflow.lib.errors import InputError

_TEXT = pa.string()
_REAL = pa.float64()
_COUNT = pa.int32()

_ROW = [(name, _TEXT) for name in ("model", "dataset", "sample_id", "variant", "relation", "loss_tokens")]
_CELL = [("model", _TEXT), ("dataset", _TEXT), ("variant", _TEXT), ("relation", _TEXT), ("loss_tokens", _TEXT)]
_ESTIMATE = [("value", _REAL), ("low", _REAL), ("high", _REAL), ("n", _COUNT)]
# `value` is the study's own, which noise makes too large; the interval is that of the corrected one.
_CORRECTED = [("value", _REAL), ("corrected", _REAL), ("low", _REAL), ("high", _REAL), ("n", _COUNT)]

SCHEMAS: dict[str, pa.Schema] = {
    # One row: one response that a model may be trained on.
    "responses": pa.schema(
        [
            ("dataset", _TEXT),
            ("sample_id", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            ("instruction", _TEXT),
            ("response", _TEXT),
            ("label", _TEXT),
            ("gold", _TEXT),
            ("label_equals_gold", pa.bool_()),
            ("status", _TEXT),
            ("sources", pa.list_(_TEXT)),
        ]
    ),
    # One row: one forward and backward pass.
    "samples": pa.schema(
        [
            *_ROW,
            ("loss", _REAL),
            # (sum l)^2 / (n sum l^2) of the n response tokens' losses: 1 is evenly spread, 1/n is all in one token.
            ("loss_concentration", _REAL),
            ("prompt_tokens", _COUNT),
            ("response_tokens", _COUNT),
            ("truncated", pa.bool_()),
            ("status", _TEXT),
        ]
    ),
    # One row: one weight matrix's gradient on one sample. A metric that was not asked for is null.
    "spectra": pa.schema(
        [
            *_ROW,
            ("layer", pa.int16()),
            ("projection", _TEXT),
            ("nuclear_norm", _REAL),
            # Divided by sqrt(min(rows, columns)) of the matrix: K and V under grouped queries compare with Q and O.
            ("nuclear_norm_scaled", _REAL),
            ("sigma_max", _REAL),
            ("sigma_min", _REAL),
            ("frobenius_norm", _REAL),
            ("mean", _REAL),
            ("max", _REAL),
            ("min", _REAL),
            ("effective_rank", _REAL),
            # sigma_max / nuclear_norm; null where the gradient is zero.
            ("sigma_ratio", _REAL),
        ]
    ),
    # Opt-in. The min(tokens, rows, columns) singular values behind a row of spectra, largest first; all others are 0.
    "singular_values": pa.schema(
        [*_ROW, ("layer", pa.int16()), ("projection", _TEXT), ("singular_values", pa.list_(_REAL))]
    ),
    # Opt-in. Cosine of two gradients of one sample: of one layer (kind same_layer, pair q-o or k-v, where their shapes
    # agree), or of one projection (the pair) in `layer` and the next one (adjacent_layers); null where one is zero.
    "cosines": pa.schema([*_ROW, ("kind", _TEXT), ("pair", _TEXT), ("layer", pa.int16()), ("cosine", _REAL)]),
    # Opt-in. One row: the term d_t x_t^T that the token at `position` gives to one gradient, by its norm |x_t| |d_t|;
    # `loss` is the token's own, null where it does not count. `token` is spelt as the tokenizer's vocabulary does.
    "tokens": pa.schema(
        [
            *_ROW,
            ("position", _COUNT),
            ("token_id", _COUNT),
            ("token", _TEXT),
            ("loss", _REAL),
            ("layer", pa.int16()),
            ("projection", _TEXT),
            ("term_norm", _REAL),
        ]
    ),
    # Mean over samples, per layer, with a bootstrap interval.
    "curves": pa.schema(
        [*_CELL, ("projection", _TEXT), ("statistic", _TEXT), ("layer", pa.int16()), *_ESTIMATE, ("purpose", _TEXT)]
    ),
    # Mean absolute difference of neighbouring layers of a mean curve, by segment of the layers.
    "mad": pa.schema(
        [
            *_CELL,
            ("projection", _TEXT),
            ("statistic", _TEXT),
            ("segment", _TEXT),
            ("layers", _TEXT),
            *_CORRECTED,
            ("purpose", _TEXT),
        ]
    ),
    # Relative difference of `relation` against the correct responses, averaged over layers.
    "rd": pa.schema(
        [
            *_CELL,
            ("projection", _TEXT),
            ("statistic", _TEXT),
            ("measure", _TEXT),
            *_CORRECTED,
            ("top_layers", pa.list_(pa.int16())),
            ("purpose", _TEXT),
        ]
    ),
    # The same, layer by layer (signed).
    "rd_layers": pa.schema(
        [*_CELL, ("projection", _TEXT), ("statistic", _TEXT), ("layer", pa.int16()), *_ESTIMATE, ("purpose", _TEXT)]
    ),
    # One row: one sample's statistics of one projection, each the mean over its layers.
    "per_sample": pa.schema(
        [
            *_CELL,
            ("sample_id", _TEXT),
            ("projection", _TEXT),
            ("loss", _REAL),
            ("response_tokens", _COUNT),
            ("nuclear_norm", _REAL),
            ("sigma_ratio", _REAL),
            ("effective_rank", _REAL),
            ("purpose", _TEXT),
        ]
    ),
    # The same, layer by layer: each statistic a list over the layers from 0 on, in single precision.
    "per_sample_layers": pa.schema(
        [
            *_CELL,
            ("sample_id", _TEXT),
            ("projection", _TEXT),
            ("loss", _REAL),
            ("response_tokens", _COUNT),
            *[(name, pa.list_(pa.float32())) for name in ("nuclear_norm", "sigma_ratio", "effective_rank")],
            ("purpose", _TEXT),
        ]
    ),
    # One row: the number that a claim is about, of one model and dataset; `p_value` is two-sided, of lying on this side
    # of the claim's bound, and `scale` says on which scale the number is symmetric.
    "evidence": pa.schema(
        [
            ("claim", _TEXT),
            ("model", _TEXT),
            ("kind", _TEXT),
            ("seed", _COUNT),
            ("reference_model", _TEXT),
            ("dataset", _TEXT),
            ("reference_dataset", _TEXT),
            ("relation", _TEXT),
            ("projection", _TEXT),
            *_ESTIMATE,
            ("p_value", _REAL),
            ("test", _TEXT),
            ("scale", _TEXT),
            ("variants", _TEXT),
            ("tokens", _REAL),
            ("reference_tokens", _REAL),
            ("reason", _TEXT),
            ("untrained_model", _TEXT),
        ]
    ),
    # Least squares of log nuclear norm on log loss and log response tokens, of the correct responses: coefficients, R2
    # (`term` r2), and for each variant the mean residual. `dataset` and `projection` may be ``all``.
    "regression": pa.schema(
        [
            ("model", _TEXT),
            ("dataset", _TEXT),
            ("projection", _TEXT),
            ("term", _TEXT),
            ("variant", _TEXT),
            *_ESTIMATE,
            ("purpose", _TEXT),
        ]
    ),
    # One row: a statement of a study, tested on one model and dataset; `seed` is the model's, `reference_model` the one
    # that it is compared with, `verdict` one of holds, fails, inconclusive, and `reason` says why it is no more.
    # `status`: stands, withdrawn or control; seed: one of several trainings, whose verdict is that over seeds;
    # not_asked: of what this config does not make, no test. A claim of the study (`claim_status`) on an untrained
    # network is a control, and `untrained` its number, beside those of the models trained from it. `variants`: those
    # of the number;
    # `tokens`, `reference_tokens`: mean response tokens of its two sides. What the model can do, where measured:
    # `accuracies` of the variants used, `accuracy` of the slowest, `chance`, `mastered`, and `ability_test`, by which
    # (`test` of the accuracy table); empty where nothing is known.
    "claims": pa.schema(
        [
            ("claim", _TEXT),
            ("study", _TEXT),
            ("status", _TEXT),
            ("claim_status", _TEXT),
            ("source", _TEXT),
            ("title", _TEXT),
            ("model", _TEXT),
            ("reference_model", _TEXT),
            ("dataset", _TEXT),
            ("reference_dataset", _TEXT),
            ("relation", _TEXT),
            ("projection", _TEXT),
            ("seed", _COUNT),
            ("statistic", _TEXT),
            *_ESTIMATE,
            ("untrained", _REAL),
            ("variants", _TEXT),
            ("tokens", _REAL),
            ("reference_tokens", _REAL),
            ("direction", _TEXT),
            ("threshold", _REAL),
            ("margin", _REAL),
            ("published", _REAL),
            ("test", _TEXT),
            ("p_value", _REAL),
            ("p_adjusted", _REAL),
            ("verdict", _TEXT),
            ("reason", _TEXT),
            ("statement", _TEXT),
            ("accuracies", _TEXT),
            ("ability_test", _TEXT),
            ("accuracy", _REAL),
            ("chance", _REAL),
            ("mastered", pa.bool_()),
        ]
    ),
    # What the samples of a cell were: counts by status, loss and lengths.
    "cells": pa.schema(
        [
            *_CELL,
            ("n", _COUNT),
            ("n_ok", _COUNT),
            ("n_truncated", _COUNT),
            ("n_no_response_tokens", _COUNT),
            ("n_nonfinite", _COUNT),
            ("n_out_of_memory", _COUNT),
            ("loss", _REAL),
            ("prompt_tokens", _REAL),
            ("response_tokens", _REAL),
            # Of the usable samples' responses: how many state an answer that can be read, how many the right one.
            ("n_labelled", _COUNT),
            ("n_label_equals_gold", _COUNT),
            ("purpose", _TEXT),
        ]
    ),
    # What a response set holds: one row a dataset, variant and relation; counts of responses, null where a question
    # does not apply (workflow/lib/audit/responses.py defines each).
    "audit": pa.schema(
        [
            ("dataset", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            *[(name, _COUNT) for name in ("n", "label_equals_gold", "missing_final_answer", "double_final_answer")],
            *[(name, _COUNT) for name in ("duplicates", "mojibake", "artefacts")],
            *[(name, pa.int64()) for name in ("characters", "characters_max", "words")],
            *[(name, _COUNT) for name in ("not_constructible", "labelled", "contradicts_label")],
            *[(name, _COUNT) for name in ("own_parts", "most_uses_of_a_donor")],
            ("marked", pa.bool_()),
        ]
    ),
    # One row: how many of a model's own answers to a dataset's held-out questions are right (`test`: answer,
    # counterfactual or recall), with Wilson 95 % bounds and what an answer that reads no question would get.
    "accuracy": pa.schema(
        [
            ("model", _TEXT),
            ("dataset", _TEXT),
            ("part", _TEXT),
            ("test", _TEXT),
            ("variant", _TEXT),
            ("n", _COUNT),
            ("correct", _COUNT),
            ("accuracy", _REAL),
            ("low", _REAL),
            ("high", _REAL),
            ("chance", _REAL),
        ]
    ),
    # One row: a prompt with a chosen and a rejected response; only those with status `ok` are trained on or probed.
    "pairs": pa.schema(
        [
            ("pair_id", _TEXT),
            ("split", _TEXT),
            ("prompt", _TEXT),
            ("chosen", _TEXT),
            ("rejected", _TEXT),
            ("status", _TEXT),
        ]
    ),
    # One row: a response whose log-probability is followed; `split` is that of its prompt, `sources` the pairs that its
    # text comes from.
    "probes": pa.schema(
        [
            ("probe_id", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("prompt", _TEXT),
            ("response", _TEXT),
            ("sources", pa.list_(_TEXT)),
            ("status", _TEXT),
        ]
    ),
    # One row: one probe at one step of a run; `examples` seen by then. Sums, then means over the response's tokens.
    "dynamics": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("probe_id", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("tokens", _COUNT),
            ("log_prob_sum", _REAL),
            ("log_prob_mean", _REAL),
            ("argmax_log_prob", _REAL),
            ("rest_log_mass", _REAL),
            ("entropy", _REAL),
            ("a_norm", _REAL),
            ("g_norm", _REAL),
            ("status", _TEXT),
        ]
    ),
    # One row: one update of a run; loss and gradient (before clipping) are those before it. `pull` and `push`: the
    # means of c+ and c- (workflow/lib/dynamics/losses.py).
    "training": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("learning_rate", _REAL),
            ("loss", _REAL),
            ("pull", _REAL),
            ("push", _REAL),
            ("grad_norm", _REAL),
        ]
    ),
    # One row: what the model said to a prompt at one step of a run, at temperature 1. `tokens` of the response, its end
    # token among them; `finished`: it ended by itself. Without a response the status says why.
    "generations": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("pair_id", _TEXT),
            ("split", _TEXT),
            ("draw", _COUNT),
            ("response", _TEXT),
            ("tokens", _COUNT),
            ("finished", pa.bool_()),
            ("status", _TEXT),
        ]
    ),
    # One row: what is told of a generation with status ok. `repetition`: share of its 4-grams of tokens that came
    # before in it; `borrowed`: it says what a training response to another question says; `correct`: null without an
    # oracle.
    "generation_scores": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("pair_id", _TEXT),
            ("split", _TEXT),
            ("draw", _COUNT),
            ("tokens", _COUNT),
            ("finished", pa.bool_()),
            ("repetition", _REAL),
            ("borrowed", pa.bool_()),
            ("correct", pa.bool_()),
        ]
    ),
    # One row: a run's generation against its baseline's for one held-out prompt. `forward` and `backward`: whom the
    # judge prefers with the run's shown first and second (run, baseline or tie); null where that answer cannot be read.
    # `verdict`: what both orders say, tie where they disagree, null where one cannot be read. `examples` of the run.
    "judgements": pa.schema(
        [
            ("run", _TEXT),
            ("baseline", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("baseline_step", _COUNT),
            ("examples", _COUNT),
            ("pair_id", _TEXT),
            ("draw", _COUNT),
            ("judge", _TEXT),
            ("forward", _TEXT),
            ("backward", _TEXT),
            ("verdict", _TEXT),
        ]
    ),
    # One row: the mean of a measure over the n prompts of a split at one step of a run, with its interval over prompts;
    # measures of a comparison name the `baseline`, others do not; `change of ...` is the last answers' over the first
    # of the run's chain. `before`: examples of the runs that this one starts from.
    "generation_curves": pa.schema(
        [
            ("model", _TEXT),
            ("seed", _COUNT),
            ("run", _TEXT),
            ("baseline", _TEXT),
            ("split", _TEXT),
            ("measure", _TEXT),
            ("step", _COUNT),
            ("baseline_step", _COUNT),
            ("examples", _COUNT),
            ("before", _COUNT),
            *_ESTIMATE,
        ]
    ),
    # One row: one probe's change of log-probability over one step of SGD, by size of the step (`halving` counts from
    # the largest). `captured`: the part of `predicted` that the captured projections carry.
    "one_step": pa.schema(
        [
            ("seed", _COUNT),
            ("loss", _TEXT),
            ("pair_id", _TEXT),
            ("trained", _TEXT),
            ("halving", _COUNT),
            ("learning_rate", _REAL),
            ("probe_id", _TEXT),
            ("type", _TEXT),
            ("predicted", _REAL),
            ("captured", _REAL),
            ("measured", _REAL),
        ]
    ),
    # One row: the mean of one measure over the probes of a type, with a bootstrap interval over probes, and its change
    # since the run's first step, paired by probe. `before`: examples of the runs that this one starts from.
    "dynamics_curves": pa.schema(
        [
            ("model", _TEXT),
            ("seed", _COUNT),
            ("run", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("measure", _TEXT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("before", _COUNT),
            *_ESTIMATE,
            ("change", _REAL),
            ("change_low", _REAL),
            ("change_high", _REAL),
        ]
    ),
    # Softmax toy: one row a label of a case, its probability before and after one step.
    "toy_squeeze": pa.schema([("case", _TEXT), ("label", _COUNT), ("before", _REAL), ("after", _REAL)]),
    # One row a case: the label pulled `up` or pushed `down`, its probability, that of the most likely other label, how
    # many others rise, how their log-ratios spread, and the probability above which they rise: exact, and first order.
    "toy_squeeze_cases": pa.schema(
        [
            ("case", _TEXT),
            *[(name, _COUNT) for name in ("labels", "up", "down")],
            *[(name, _REAL) for name in ("rate", "size", "before", "after")],
            ("winner", _COUNT),
            ("winner_before", _REAL),
            ("winner_after", _REAL),
            ("rising", _COUNT),
            *[(name, _REAL) for name in ("median_ratio", "ratio_spread", "threshold", "first_order_threshold")],
        ]
    ),
    # One row a random softmax and level of what is varied: the share of other labels that fall, what the winner gains.
    "toy_squeeze_sweeps": pa.schema(
        [
            ("sweep", _TEXT),
            ("draw", _COUNT),
            *[(name, _REAL) for name in ("level", "falling", "winner_gain", "median_log_ratio")],
        ]
    ),
    # One row a step of an objective that pushes one label of a softmax down.
    "toy_clip": pa.schema(
        [
            ("case", _TEXT),
            ("objective", _TEXT),
            ("step", _COUNT),
            *[(name, _REAL) for name in ("log_prob", "winner_prob", "median_log_prob", "entropy", "coefficient")],
        ]
    ),
    # Image toy: mean softmax output `value` for `label` on the n test images of class `observed`, along training.
    "toy_predictions": pa.schema(
        [("epoch", _COUNT), ("observed", _TEXT), ("label", _TEXT), ("value", _REAL), ("n", _COUNT), ("accuracy", _REAL)]
    ),
    # Mean Frobenius norm of the tangent kernel over n pairs of distinct images of two classes.
    "toy_kernels": pa.schema(
        [("epoch", _COUNT), ("learned", _TEXT), ("observed", _TEXT), ("norm", _REAL), ("n", _COUNT)]
    ),
    # One row a pair of images: the change of log pi(learned class) on the observed image by one step on the learned
    # one, true and to first order; norms and cosine of the changes of all labels' log-probabilities.
    "toy_steps": pa.schema(
        [
            ("epoch", _COUNT),
            ("rate", _REAL),
            ("learned", _TEXT),
            ("observed", _TEXT),
            *[(name, _COUNT) for name in ("learned_image", "observed_image")],
            *[(name, _REAL) for name in ("measured", "predicted", "cosine")],
            *[(name, _REAL) for name in ("measured_norm", "predicted_norm", "residual_norm")],
        ]
    ),
    # Mean true change of pi(label) on images of class `observed` by one step on an image of class `learned`; `same`: on
    # that image itself, else on n pairs of distinct images.
    "toy_changes": pa.schema(
        [
            ("epoch", _COUNT),
            ("rate", _REAL),
            ("learned", _TEXT),
            ("observed", _TEXT),
            ("same", pa.bool_()),
            ("label", _TEXT),
            ("change", _REAL),
            ("n", _COUNT),
        ]
    ),
}


# The rules that make them, for the errors of reading.
_MADE_BY: dict[str, Sequence[str]] = {
    "build_responses": ["responses"],
    "measure_gradients": ["samples", "spectra", "singular_values", "cosines", "tokens"],
    "summarise_gradients": ["curves", "mad", "rd", "rd_layers", "cells", "per_sample", "per_sample_layers"],
    "regress_gradients": ["regression"],
    "gather_evidence, gather_dynamics_evidence or gather_toy_evidence": ["evidence"],
    "test_claims": ["claims"],
    "audit_responses": ["audit"],
    "measure_accuracy or gather_evidence": ["accuracy"],
    "build_pairs": ["pairs"],
    "build_probes": ["probes"],
    "finetune": ["dynamics", "training", "generations"],
    "score_generations": ["generation_scores"],
    "judge_generations": ["judgements"],
    "summarise_generations": ["generation_curves"],
    "check_step": ["one_step"],
    "summarise_dynamics": ["dynamics_curves"],
    "squeeze_softmax": ["toy_squeeze", "toy_squeeze_cases", "toy_squeeze_sweeps"],
    "train_classifier": ["toy_predictions", "toy_kernels", "toy_steps", "toy_changes"],
    "clip_objective": ["toy_clip"],
}
RULES = {name: rule for rule, names in _MADE_BY.items() for name in names}


def write_table(name: str, data: pa.Table | list[dict], path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write one of `SCHEMAS` as Parquet with a checksum (`workflow.lib.checked`).

    `data` has exactly the schema's columns (a table, or rows as dicts). `metadata` values are written
    as JSON under the key ``gradatlas``; give deterministic facts only.
    """
    schema = SCHEMAS[name]
    table = (
        pa.Table.from_pylist(data, schema=schema) if isinstance(data, list) else data.select(schema.names).cast(schema)
    )
    facts = _facts(name, metadata)
    with parquet_writer(path, schema.with_metadata(facts)) as writer:
        writer.write_table(table.replace_schema_metadata(facts))


@contextmanager
def table_in_parts(name: str, path: str | Path, metadata: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Write one of `SCHEMAS` part by part, for what is too large to be held whole; yields what takes a part.

    The file is there once the block ends well, and not at all where it raises.
    """
    schema = SCHEMAS[name].with_metadata(_facts(name, metadata))
    with parquet_writer(path, schema) as writer:
        yield lambda part: writer.write_table(part.select(schema.names).cast(schema))


def _facts(name: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"gradatlas": json.dumps({"table": name, **metadata}, sort_keys=True)}


def read_table(name: str, path: str | Path, columns: Sequence[str] | None = None, own: bool = True) -> pa.Table:
    """Read one of `SCHEMAS`, or some of its columns; without `own` it may be a user's, which has no checksum.

    Raises `InputError` that names the file and the rule that makes it, where it is missing, damaged or lacks a column.
    """
    with open_parquet(path, RULES[name], own) as file:
        found = file.schema_arrow.names
        missing = [column for column in SCHEMAS[name].names if column not in found]
        if missing:
            raise InputError(f"{path}: not a '{name}' table, column '{missing[0]}' is missing; have {', '.join(found)}")
        return file.read(columns)


def read_metadata(path: str | Path, name: str = "") -> dict[str, Any]:
    """The deterministic facts written with a table, one of `SCHEMAS` by `name`; `InputError` as by `read_table`."""
    with open_parquet(path, RULES.get(name, "of this table")) as file:
        return json.loads((file.schema_arrow.metadata or {}).get(b"gradatlas", b"{}"))
