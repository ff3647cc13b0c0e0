"""The tables of the data."""

import pyarrow as pa

from gradatlas.core.tables import Table

TEXT = pa.string()
REAL = pa.float64()
COUNT = pa.int32()

# One row: one response that a model may be trained on.
RESPONSES = Table(
    "responses",
    "build_responses",
    pa.schema(
        [
            ("dataset", TEXT),
            ("sample_id", TEXT),
            ("variant", TEXT),
            ("relation", TEXT),
            ("instruction", TEXT),
            ("response", TEXT),
            ("label", TEXT),
            ("gold", TEXT),
            ("label_equals_gold", pa.bool_()),
            ("status", TEXT),
            ("sources", pa.list_(TEXT)),
        ]
    ),
)

# One row: counts of a response set, by dataset, variant and relation (workflow/gradatlas/data/audit.py defines them).
AUDIT = Table(
    "audit",
    "audit_responses",
    pa.schema(
        [
            ("dataset", TEXT),
            ("variant", TEXT),
            ("relation", TEXT),
            *[(name, COUNT) for name in ("n", "label_equals_gold", "missing_final_answer", "double_final_answer")],
            *[(name, COUNT) for name in ("duplicates", "mojibake", "artefacts")],
            *[(name, pa.int64()) for name in ("characters", "characters_max", "words")],
            *[(name, COUNT) for name in ("not_constructible", "labelled", "contradicts_label")],
            *[(name, COUNT) for name in ("own_parts", "most_uses_of_a_donor")],
            ("marked", pa.bool_()),
        ]
    ),
)

# One row: a prompt with a chosen and a rejected response; only those with status `ok` are trained on or probed.
PAIRS = Table(
    "pairs",
    "build_pairs",
    pa.schema(
        [
            ("pair_id", TEXT),
            ("split", TEXT),
            ("prompt", TEXT),
            ("chosen", TEXT),
            ("rejected", TEXT),
            ("status", TEXT),
        ]
    ),
)
