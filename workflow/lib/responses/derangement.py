"""The corrected irrelevant response: another sample's, never oneself, its label never right."""

from collections.abc import Mapping

from workflow.lib.seeds import seeded_hash


def derange(labels: Mapping[str, str], seed: int) -> dict[str, str | None]:
    """A donor for every sample: another sample whose label differs.

    `labels` maps `sample_id` to its label (for data without labels give each sample one of its own). Samples are
    laid out label by label, the commonest first, each label's in the order of a seeded hash; a shift by the size of
    the largest group then leads out of every group. Each donor is used once, or, where one label holds more than
    half of the samples, at most ceil(majority / rest) times. Where all labels are equal there is no donor: None.
    """
    groups: dict[str, list[str]] = {}
    for sample_id in sorted(labels, key=lambda sample_id: seeded_hash(seed, sample_id)):
        groups.setdefault(labels[sample_id], []).append(sample_id)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), labels[group[0]]))
    line = [sample_id for group in ordered for sample_id in group]
    shift = len(ordered[0]) if ordered else 0
    if 2 * shift <= len(line):
        return {sample_id: line[(i + shift) % len(line)] for i, sample_id in enumerate(line)}
    majority, rest = line[:shift], line[shift:]
    donors: dict[str, str | None] = {
        sample_id: rest[i % len(rest)] if rest else None for i, sample_id in enumerate(majority)
    }
    return donors | {sample_id: majority[i] for i, sample_id in enumerate(rest)}
