"""The tables of the claims."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT
from gradatlas.statistics.tables import ESTIMATE

#: Of evidence that is of no language model: a softmax, a classifier, formulas.
TOY = "toy"

# One row: the number that a claim is about, of one model and dataset; `p_value` is two-sided, of lying on this side
# of the claim's bound, and `scale` names the scale on which the number is symmetric. Of the second study: `headroom`,
# how far the number could move at all in the claimed direction (null: no limit, or not known); of free answers, what
# the model at the start of run `answers_of` can do: the share `accuracy` of its `answers` that is right, and chance.
EVIDENCE = Table(
    "evidence",
    "gather_evidence, gather_dynamics_evidence or gather_toy_evidence",
    pa.schema(
        [
            ("claim", TEXT),
            ("model", TEXT),
            ("kind", TEXT),
            ("seed", COUNT),
            ("reference_model", TEXT),
            ("dataset", TEXT),
            ("reference_dataset", TEXT),
            ("relation", TEXT),
            ("projection", TEXT),
            *ESTIMATE,
            ("p_value", REAL),
            ("test", TEXT),
            ("scale", TEXT),
            ("variants", TEXT),
            ("tokens", REAL),
            ("reference_tokens", REAL),
            ("reason", TEXT),
            ("untrained_model", TEXT),
            ("headroom", REAL),
            ("answers_of", TEXT),
            ("answers", COUNT),
            ("accuracy", REAL),
            ("chance", REAL),
        ]
    ),
)

# One row: a statement of a study, tested on one model and dataset. First what a reader needs. `finding`: its sheet's
# column; `kind`: the model's, random for an untrained network. `seed` is the model's, `reference_model` the one
# that it is compared with, `verdict` one of holds, fails, inconclusive, and `reason` states why it is no more;
# `probes_alone`: of one training, which decides no claim about trainings, the verdict over its probes. `status`:
# stands, withdrawn or control; seed: one of several trainings, whose verdict is that over seeds; not_asked: this
# config does not make what the claim is about, no test. A claim of the study (`claim_status`) on an untrained network
# is a control, and `untrained` its number, beside those of the models trained from it. `variants`: those of the
# number; `tokens`, `reference_tokens`: mean response tokens of its two sides. What the model can do, where measured:
# `accuracies` of the variants used, `accuracy` of the slowest, `chance`, `mastered`, and `ability_test`, by which
# (`test` of the accuracy table); empty where nothing is known. `relation`: responses compared with the correct ones;
# of the second study RUN[:RUN][/TYPE][@PLACE], a loss or a case. `headroom`: as in the evidence.
CLAIMS = Table(
    "claims",
    "test_claims",
    pa.schema(
        [
            ("claim", TEXT),
            ("statement", TEXT),
            ("study", TEXT),
            ("model", TEXT),
            ("dataset", TEXT),
            ("verdict", TEXT),
            *ESTIMATE,
            ("untrained", REAL),
            ("relation", TEXT),
            ("projection", TEXT),
            ("reason", TEXT),
            ("probes_alone", TEXT),
            ("status", TEXT),
            ("claim_status", TEXT),
            ("source", TEXT),
            ("title", TEXT),
            ("finding", TEXT),
            ("kind", TEXT),
            ("reference_model", TEXT),
            ("reference_dataset", TEXT),
            ("seed", COUNT),
            ("statistic", TEXT),
            ("variants", TEXT),
            ("tokens", REAL),
            ("reference_tokens", REAL),
            ("direction", TEXT),
            ("threshold", REAL),
            ("margin", REAL),
            ("headroom", REAL),
            ("published", REAL),
            ("test", TEXT),
            ("p_value", REAL),
            ("p_adjusted", REAL),
            ("accuracies", TEXT),
            ("ability_test", TEXT),
            ("accuracy", REAL),
            ("chance", REAL),
            ("mastered", pa.bool_()),
        ]
    ),
)
