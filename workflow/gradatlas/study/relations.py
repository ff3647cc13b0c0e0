"""What the relations of responses are: which are built here, and which promise a wrong label."""

from typing import Literal, get_args

#: Come with the data.
Given = Literal["correct", "published", "wrong_chain"]
#: Built from the correct responses of any dataset, by `gradatlas.data.responses.build`.
Built = Literal["reference", "derangement", "wrong_answer", "shuffled", "foreign_fluent", "sentence_salad"]
BUILT = get_args(Built)
#: The variant whose response states a dataset's gold answers, by the `gold` of datasets.tsv.
GOLD_VARIANT = {"none": "none", "final_answer": "simplified", "boxed": "simplified"}
#: Parts of a mapping's `columns` that change what a question asks (data/partners.py).
PARTNERS = ("system", "context", "input")
#: Their label is meant to be wrong; a right one among them is counted as a defect. The other controls keep the right
#: answer on purpose.
MEANT_WRONG = ("published", "reference", "derangement", "wrong_answer", "wrong_chain")
#: A larger share of right labels than this, where all should be wrong, is warned of and marked.
TOLERATED = 0.01


def is_marked(relation: str, right: int | None, known: int | None) -> bool:
    """Whether more labels that should be wrong are right than tolerated."""
    return relation in MEANT_WRONG and (right or 0) > TOLERATED * (known or 0)


def warning_of(responses: str, right: int, known: int) -> str:
    """The warning for a marked set of `responses`, in one line."""
    return f"warning: {responses}: {right} of {known} labels that should be wrong are right ({right / known:.1%})"
