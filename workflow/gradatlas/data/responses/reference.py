"""The algorithm of the published irrelevant responses, reconstructed from the files, with its defects.

Step A gives each sample another sample's response, the same for all variants of a dataset. It works in place, which is
its defect: overwritten responses are passed on, and one side of every swap keeps its own response. Step B cuts these
base responses into units, pools first units and inner units over the whole file, and builds each response from a random
first unit, as many random inner units as its base has, and its base's last unit.
"""

from collections.abc import Sequence
from random import Random

from gradatlas.core.errors import InputError
from gradatlas.data.responses.labels import read_label
from gradatlas.data.responses.material import NOTHING, Built, Material
from gradatlas.data.responses.sentences import units


def reference(material: Material, variant: str) -> list[Built]:
    """One response per sample, by the dataset's recipe; for None, the base response.

    Without gold answers (``pool``) there is no base map: the sentences of the whole file are permuted, and each sample
    gets as many as its own response has. `InputError` for a base map that needs answers, in data without them.
    """
    responses = [sample.responses[variant, "correct"] for sample in material.samples]
    rng = Random(f"reference {material.seed} {variant}")
    if material.recipe.base == "pool":
        return _pooled(material, variant, responses, rng)
    labels = [sample.gold or "" for sample in material.samples]
    if material.recipe.base != "shift" and not any(labels):
        raise InputError(
            f"recipe '{material.recipe.base}' pairs samples with different answers, but the data have none; write "
            "shift or pool in column 'recipe' of config/datasets.tsv"
        )
    # The same base map for all variants.
    base = base_map(material.recipe.base, labels, Random(f"reference {material.seed}"))
    if variant == "none":
        ids = [material.samples[i].sample_id for i in base]
        return [Built(responses[i], responses[i], (name,)) for i, name in zip(base, ids, strict=True)]
    return _recombined(material, variant, [(i, responses[i]) for i in base], rng)


def base_map(kind: str, labels: Sequence[str], rng: Random) -> list[int]:
    """Step A: for each position, the position whose response it gets.

    ``shift``: the next one's; the last gets the first one's new response, which is the second's. ``pairs``: each in
    turn is paired with a random later one, not yet paired and of another label, and takes its response; the other takes
    that back, and so keeps its own. Unpaired ones copy the current response of a random one of another label.
    ``permutation``: each in turn copies the current response of its partner in a random permutation, in which partners
    have different labels.
    """
    held = list(range(len(labels)))
    if kind == "shift":
        for i in range(len(labels)):
            held[i] = held[(i + 1) % len(labels)]
    elif kind == "permutation":
        for i, partner in enumerate(_permutation(labels, rng)):
            held[i] = held[partner]
    else:
        _swap_pairs(held, labels, rng)
    return held


def _swap_pairs(held: list[int], labels: Sequence[str], rng: Random) -> None:
    free, alone = dict.fromkeys(range(len(labels))), []
    while free:
        one = next(iter(free))
        del free[one]
        partners = [other for other in free if labels[other] != labels[one]]
        if not partners:
            alone.append(one)
            continue
        other = rng.choice(partners)
        del free[other]
        held[one] = held[other]
        held[other] = held[one]
    for one in alone:
        others = [other for other, label in enumerate(labels) if label != labels[one]]
        if others:
            held[one] = held[rng.choice(others)]


def _permutation(labels: Sequence[str], rng: Random) -> list[int]:
    """A random permutation; a partner with the same label is moved on to the next position with another label."""
    order = list(range(len(labels)))
    rng.shuffle(order)
    for i, label in enumerate(labels):
        for j in range(i, len(order)):
            if labels[order[j]] != label:
                order.insert(i, order.pop(j))
                break
    return order


def _recombined(material: Material, variant: str, base: Sequence[tuple[int, str]], rng: Random) -> list[Built]:
    """Step B on the base responses, (position, text) each."""
    cut = [(i, units(response, material.recipe.splitter(variant))) for i, response in base]
    first = [(i, parts[0]) for i, parts in cut if parts]
    inner = [(i, part) for i, parts in cut for part in parts[1:-1]]
    rng.shuffle(first)
    rng.shuffle(inner)
    built = []
    for i, parts in cut:
        if not parts:
            built.append(NOTHING)
            continue
        taken = [first.pop(), *(inner.pop() for _ in parts[1:-1]), *((i, part) for part in parts[1:][-1:])]
        response = ". ".join(part for _, part in taken)
        label = read_label(response, variant, material.gold)
        if label is None and len(parts) > 1:
            # The ending is that of its base, whose answer is known.
            label = material.samples[i].gold
        built.append(Built(response, label, _ids(material, taken)))
    return built


def _pooled(material: Material, variant: str, responses: Sequence[str], rng: Random) -> list[Built]:
    cut = [units(response, material.recipe.splitter(variant)) for response in responses]
    pool = [(i, part) for i, parts in enumerate(cut) for part in parts]
    rng.shuffle(pool)
    built = []
    for parts in cut:
        taken = [pool.pop() for _ in parts]
        built.append(Built(" ".join(part for _, part in taken), None, _ids(material, taken)) if taken else NOTHING)
    return built


def _ids(material: Material, taken: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(material.samples[i].sample_id for i, _ in taken))
