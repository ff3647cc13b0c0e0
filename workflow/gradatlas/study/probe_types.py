"""The types of probes, for what only has to know their names; `gradatlas.finetuning.probes` says what each is."""

from typing import Literal, get_args

ProbeType = Literal[
    "chosen",
    "initial",
    "self_rephrase",
    "chosen_semantic",
    "chosen_format",
    "rejected",
    "rejected_semantic",
    "rejected_format",
    "irrelevant_train",
    "irrelevant_held_out",
    "unrelated",
    "permuted",
    "random_tokens",
]
TYPES = get_args(ProbeType)
#: Written by people, templates or other models, and not made from the pairs and the model.
REPHRASED = ("chosen_semantic", "chosen_format", "rejected_semantic", "rejected_format", "unrelated")
