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
    "random_nonhum",
    "random_tokens",
]
TYPES = get_args(ProbeType)
#: By type, the field of the study's probe files (``formal_prob_{train,test}.jsonl``), which also have a prompt.
STUDY_FIELDS: dict[ProbeType, str] = {
    "chosen": "chosen",
    "initial": "chosen_initial",
    "self_rephrase": "chosen_selfr",
    "chosen_semantic": "chosen_gptsemantic",
    "chosen_format": "chosen_gptformat",
    "rejected": "rejected",
    "rejected_semantic": "reject_gptsemantic",
    "rejected_format": "reject_gptformat",
    "irrelevant_train": "irr_train",
    "irrelevant_held_out": "irr_test",
    "unrelated": "irr_hum",
    "permuted": "random_permute",
    "random_nonhum": "random_nonhum",
}
#: Written by people, templates or other models, and not made from the pairs and the model.
REPHRASED = ("chosen_semantic", "chosen_format", "rejected_semantic", "rejected_format", "unrelated")
