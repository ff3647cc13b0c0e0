"""The tables of finetuning."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# A step of a run; `examples` seen by then.
_MOMENT = [("run", TEXT), ("seed", COUNT), ("step", COUNT), ("examples", COUNT)]

# One row: a response whose log-probability is followed; `split` is that of its prompt, `sources` the pairs that its
# text comes from.
PROBES = Table(
    "probes",
    "build_probes",
    pa.schema(
        [
            ("probe_id", TEXT),
            ("split", TEXT),
            ("type", TEXT),
            ("prompt", TEXT),
            ("response", TEXT),
            ("sources", pa.list_(TEXT)),
            ("status", TEXT),
        ]
    ),
)

# One row: one probe at one step of a run; `examples` seen by then. Sums, then means over the response's tokens.
DYNAMICS = Table(
    "dynamics",
    "finetune",
    pa.schema(
        [
            *_MOMENT,
            ("probe_id", TEXT),
            ("split", TEXT),
            ("type", TEXT),
            ("tokens", COUNT),
            ("log_prob_sum", REAL),
            ("log_prob_mean", REAL),
            ("argmax_log_prob", REAL),
            ("rest_log_mass", REAL),
            ("entropy", REAL),
            ("a_norm", REAL),
            ("g_norm", REAL),
            ("status", TEXT),
        ]
    ),
)

# One row: one update of a run; loss and gradient (before clipping) are those before it. `pull` and `push`: the
# means of c+ and c- (workflow/gradatlas/finetuning/losses.py). `ranked`: pairs with a winner; the others count in means
# with 0. Null where there are no pairs.
TRAINING = Table(
    "training",
    "finetune",
    pa.schema(
        [
            *_MOMENT,
            ("learning_rate", REAL),
            ("loss", REAL),
            ("pull", REAL),
            ("push", REAL),
            ("grad_norm", REAL),
            ("ranked", COUNT),
        ]
    ),
)

# One row: a free response to a prompt at one step of a run, at temperature 1. `tokens`: with the end token. `finished`:
# it ended with the end token. Without a response, `status` gives the reason.
GENERATIONS = Table(
    "generations",
    "finetune",
    pa.schema(
        [
            *_MOMENT,
            ("pair_id", TEXT),
            ("split", TEXT),
            ("draw", COUNT),
            ("response", TEXT),
            ("tokens", COUNT),
            ("finished", pa.bool_()),
            ("status", TEXT),
        ]
    ),
)

# One row: the scores of a generation with status ok (finetuning/judging/scores.py). `correct`: null without an oracle.
GENERATION_SCORES = Table(
    "generation_scores",
    "score_generations",
    pa.schema(
        [
            *_MOMENT,
            ("pair_id", TEXT),
            ("split", TEXT),
            ("draw", COUNT),
            ("tokens", COUNT),
            ("finished", pa.bool_()),
            ("repetition", REAL),
            ("borrowed", pa.bool_()),
            ("correct", pa.bool_()),
        ]
    ),
)

# One row: a run's generation against its baseline's for one held-out prompt. `forward` and `backward`: the preferred
# side with the run's shown first and second (run, baseline or tie); null where the judge gave none. `verdict`: of both
# orders; tie where they disagree. `status`: ok, or unreadable where one has none: an endpoint's answer names neither A
# nor B nor TIE or was cut off, a reward model's text does not fit its window. `examples`: of the run.
JUDGEMENTS = Table(
    "judgements",
    "judge_generations",
    pa.schema(
        [
            ("run", TEXT),
            ("baseline", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            ("baseline_step", COUNT),
            ("examples", COUNT),
            ("pair_id", TEXT),
            ("draw", COUNT),
            ("judge", TEXT),
            ("forward", TEXT),
            ("backward", TEXT),
            ("verdict", TEXT),
            ("status", TEXT),
        ]
    ),
)

# By name, for what finds them at run time.
TABLES = {each.name: each for each in (PROBES, DYNAMICS, TRAINING, GENERATIONS, GENERATION_SCORES, JUDGEMENTS)}
