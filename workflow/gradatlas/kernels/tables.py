"""The tables of kernels: single steps, budgets of runs, and kernels along them."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# One row: one probe's change of log-probability over one step of SGD, by size of the step (`halving` counts from
# the largest). `captured`: the part of `predicted` from the captured projections.
ONE_STEP = Table(
    "one_step",
    "check_step",
    pa.schema(
        [
            ("seed", COUNT),
            ("loss", TEXT),
            ("pair_id", TEXT),
            ("trained", TEXT),
            ("halving", COUNT),
            ("learning_rate", REAL),
            ("probe_id", TEXT),
            ("type", TEXT),
            ("predicted", REAL),
            ("captured", REAL),
            ("measured", REAL),
        ]
    ),
)

# A block of the model; `layer` is null outside of the layers.
_BLOCK = [("layer", COUNT), ("block", TEXT)]

# One row: a block's part of one probe's change of log pi(y|x), in nats, from the weights after step `since` of a run to
# those after `step`: by the gradients at the first end, and by those at both ends and in the middle (Simpson's rule).
# `measured`: the whole change, the same for all blocks, to which the parts add up.
BUDGET = Table(
    "budget",
    "measure_budget",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("since", COUNT),
            ("step", COUNT),
            ("probe_id", TEXT),
            ("type", TEXT),
            *_BLOCK,
            ("first_order", REAL),
            ("predicted", REAL),
            ("measured", REAL),
        ]
    ),
)

# One row: two responses, k(o, u) = <s_o, s_u> over all parameters, and its cosine, at one step of a run. Each pair
# once, a response with itself too. `block`: all.
KERNELS = Table(
    "kernels",
    "measure_kernels",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            ("o", TEXT),
            ("u", TEXT),
            ("block", TEXT),
            ("value", REAL),
            ("cosine", REAL),
        ]
    ),
)

# One row: the mean of a block's kernel and cosine over the `n` pairs of responses of two types, to one prompt (`same`)
# or to two; a response with itself is left out.
KERNEL_MEANS = Table(
    "kernel_means",
    "measure_kernels",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            *_BLOCK,
            ("o_type", TEXT),
            ("u_type", TEXT),
            ("same", pa.bool_()),
            ("n", COUNT),
            ("value", REAL),
            ("cosine", REAL),
        ]
    ),
)

# One row: a block's <s+, s->, |s+|^2 and |s-|^2 of the chosen and the rejected response to one prompt, and
# E_b = <s+, s->_b / sum_b |s+|_b^2. A small step on log pi(chosen) - log pi(rejected) lowers the chosen response
# exactly where the sum of E_b over blocks is above 1.
ENTANGLEMENT = Table(
    "entanglement",
    "measure_kernels",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            ("prompt", TEXT),
            *_BLOCK,
            ("cross", REAL),
            ("chosen", REAL),
            ("rejected", REAL),
            ("entanglement", REAL),
        ]
    ),
)

# One row: the Frobenius norm of the kernel of the logits of two responses (workflow/gradatlas/kernels/norms.py), for a
# block or for all parameters (`all`), with its standard error, at one step of a run. Each pair once.
KERNEL_NORMS = Table(
    "kernel_norms",
    "measure_kernels",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            ("o", TEXT),
            ("u", TEXT),
            *_BLOCK,
            ("squared_norm", REAL),
            ("error", REAL),
        ]
    ),
)

# One row: a gradient's nuclear norm on a held-out response of the first study, with the sample's mean loss and response
# tokens, at one step of SFT on one variant.
BRIDGE = Table(
    "bridge",
    "measure_bridge",
    pa.schema(
        [
            ("run", TEXT),
            ("seed", COUNT),
            ("step", COUNT),
            ("sample_id", TEXT),
            ("variant", TEXT),
            ("relation", TEXT),
            ("loss", REAL),
            ("response_tokens", COUNT),
            ("layer", pa.int16()),
            ("projection", TEXT),
            ("nuclear_norm", REAL),
        ]
    ),
)
