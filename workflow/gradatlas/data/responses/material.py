"""Input and output of the builders of responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gradatlas.core.errors import InputError, nearest
from gradatlas.data.options import chosen
from gradatlas.data.responses.derangement import derange
from gradatlas.data.responses.labels import canonical, same_answer
from gradatlas.data.responses.sentences import SPLITTERS
from gradatlas.data.samples import Sample
from gradatlas.study.seeds import seeded_hash

BASES = ("shift", "pairs", "permutation", "pool")


@dataclass(frozen=True)
class Recipe:
    """How a dataset's published irrelevant responses were made: the base map, and the splitter of each variant.

    `splitters`: names in `SPLITTERS`, by variant; "": for all other variants.
    """

    base: str
    splitters: Mapping[str, str]

    def splitter(self, variant: str) -> str:
        """The name of the splitter of a variant."""
        return self.splitters.get(variant, self.splitters[""])


def read_recipe(words: Sequence[str]) -> Recipe:
    """A recipe from the `recipe` column of datasets.tsv: a base map, then splitters of one variant or of all.

    >>> read_recipe(["shift", "dot", "detailed:backslash"])
    Recipe(base='shift', splitters={'': 'dot', 'detailed': 'backslash'})
    """
    base, *rest = words or ["shift"]
    if base not in BASES:
        raise InputError(f"recipe '{' '.join(words)}': unknown base map '{base}': {nearest(base, BASES)}")
    splitters = {"": "sentence" if base == "pool" else "dot"}
    for word in rest:
        variant, _, name = word.rpartition(":")
        if name not in SPLITTERS:
            raise InputError(f"recipe '{' '.join(words)}': unknown splitter '{name}': {nearest(name, SPLITTERS)}")
        splitters[variant] = name
    return Recipe(base, splitters)


@dataclass(frozen=True)
class Built:
    """One built response; None where it is not constructible.

    `label`: the answer that it states by construction, None where that is unknown. `sources`: the ids of the samples
    that its parts come from, in order of appearance.
    """

    response: str | None
    label: str | None = None
    sources: tuple[str, ...] = ()


#: A response that is not constructible.
NOTHING = Built(None)


@dataclass(frozen=True)
class Material:
    """The samples of a dataset, in the order of its files, and the maps that builders share.

    `gold`: a key of `GOLD`, or "".
    """

    samples: Sequence[Sample]
    gold: str
    seed: int
    recipe: Recipe = field(default_factory=lambda: read_recipe([]))

    @cached_property
    def donors(self) -> dict[str, Sample | None]:
        """For each sample, another sample with a different answer; the same for all variants (`derange`)."""
        by_id = {sample.sample_id: sample for sample in self.samples}
        donors = derange({sample.sample_id: self._label(sample) for sample in self.samples}, self.seed)
        return {sample_id: by_id.get(donor or "") for sample_id, donor in donors.items()}

    @cached_property
    def wrong_labels(self) -> dict[str, str | None]:
        """A wrong answer for each sample: another option of its question, or else the answer of its donor."""
        wrong = {}
        for sample in self.samples:
            donor = self.donors[sample.sample_id]
            wrong[sample.sample_id] = (
                other_option(sample.options, sample.gold, sample.sample_id, self.seed)
                if sample.options
                else donor and donor.gold
            )
        return wrong

    def _label(self, sample: Sample) -> str:
        # Without labels, the question is used instead.
        return next(iter(sample.instructions.values())) if sample.gold is None else canonical(sample.gold)


def other_option(options: Mapping[str, str], gold: str, sample_id: str, seed: int) -> str | None:
    """A wrong option, drawn by a seeded hash of the sample; None where there is none.

    An option with the right option's text (AQuA lists some twice) is not wrong.
    """
    right = options.get(chosen(options, gold) or "", gold)
    wrong = [label for label, text in options.items() if not same_answer(label, gold) and not same_answer(text, right)]
    return min(wrong, key=lambda label: seeded_hash(seed, f"{sample_id} {label}"), default=None)
