"""Graded training data: questions of the miniature with good responses, and with responses of known faults.

Rows in the order of a shuffled file, each with its fault (`group`) and grade: 2 for good ones, 1 for good ones that
teach nothing new, 0 for wrong ones. Questions are held out from the miniature's training.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gradatlas.data.made_up import arithmetic, taxonomy
from gradatlas.data.made_up.miniature import CUES, held_out, training_documents
from gradatlas.data.responses.sentences import split_ending, split_text
from gradatlas.data.samples import Sample, with_final

CLEAN = "clean"
#: By fault, the grade of its rows.
GRADES = {
    CLEAN: 2,
    "duplicated": 1,
    "too_easy": 1,
    "noisy": 0,
    "shuffled": 0,
    "contradictory": 0,
    "mismatched": 0,
    "word_salad": 0,
}
# Words of a noisy response that are changed.
_NOISE = 0.15
_DATASETS = ("mini_arithmetic", "mini_taxonomy")


def graded_rows(clean: int, planted: int, seed: int) -> list[dict[str, Any]]:
    """`clean` good rows and `planted` of each fault: id, instruction, output, group, grade.

    Half of each are about arithmetic, half about the taxonomy; all are asked for and answered step by step, but
    ``too_easy``: one sum, or words to be said again. ``duplicated`` rows are exact copies of good ones.
    """
    rng = Random(f"graded {seed}")
    faults = [name for name in GRADES if name != CLEAN]
    groups = [CLEAN] * clean + [name for name in faults for _ in range(planted)]
    need = clean + planted * sum(name in WRONG for name in faults)
    samples = {dataset: held_out(dataset, -(-need // 2) + 2, seed) for dataset in _DATASETS}
    for drawn in samples.values():
        # Their order has the kinds of questions one after another.
        rng.shuffle(drawn)
    rows: list[dict[str, Any]] = []
    asked = 0
    for group in groups:
        if group == "duplicated":
            pair = _text(rows[sum(row["group"] == group for row in rows) % clean])
        elif group == "too_easy":
            pair = _easy(rng)
        else:
            of_task = samples[_DATASETS[asked % 2]]
            sample, other = of_task[asked // 2], of_task[(asked // 2 + 1) % len(of_task)]
            asked += 1
            response = sample.responses["detailed", "correct"]
            if group != CLEAN:
                response = WRONG[group](sample, other, rng)
            pair = (sample.instructions["detailed"], response)
        number = sum(row["group"] == group for row in rows)
        row = {"id": f"{group}-{number}", "instruction": pair[0], "output": pair[1]}
        rows.append(row | {"group": group, "grade": GRADES[group]})
    rng.shuffle(rows)
    return rows


def _text(row: dict[str, Any]) -> tuple[str, str]:
    return row["instruction"], row["output"]


def _easy(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        documents = training_documents(rng.randrange(2**31), opening=0)
        document = next(each for each in documents if each.task == "recitation")
        return document.question, document.response
    chain = arithmetic.draw_chain(rng, 1)
    wording = arithmetic.draw_wording(rng, 1)
    question = f"{wording.question(chain)} {CUES['simplified']}"
    return question, arithmetic.respond("simplified", chain, wording, chain.values)


def _noisy(sample: Sample, other: Sample, rng: Random) -> str:
    """Two letters of some words exchanged, and some numbers of the steps replaced; the final answer stays."""
    rationale, ending = split_ending(sample.responses["detailed", "correct"], "detailed", sample.gold)
    words = rationale.split(" ")
    long = [place for place, word in enumerate(words) if len(word.strip(".,?")) > 3 or word.strip(".,").isdigit()]
    for place in rng.sample(long, max(2, round(_NOISE * len(words)))):
        words[place] = _mistyped(words[place], rng)
    return " ".join(words) + ending


def _mistyped(word: str, rng: Random) -> str:
    bare = word.strip(".,?")
    if bare.isdigit():
        others = [n for n in range(arithmetic.LOWEST, arithmetic.HIGHEST + 1) if n != int(bare)]
        return word.replace(bare, str(rng.choice(others)))
    at = rng.choice([i for i in range(len(bare) - 1) if bare[i] != bare[i + 1]])
    return word.replace(bare, bare[:at] + bare[at + 1] + bare[at] + bare[at + 2 :])


def _shuffled(sample: Sample, other: Sample, rng: Random) -> str:
    """The steps in another order; the final answer stays last."""
    rationale, ending = split_ending(sample.responses["detailed", "correct"], "detailed", sample.gold)
    text = split_text(rationale)
    order = list(text.sentences)
    while order == list(text.sentences):
        rng.shuffle(order)
    return text.with_sentences(order) + ending


def _contradictory(sample: Sample, other: Sample, rng: Random) -> str:
    """Right steps, and a final answer that is not theirs."""
    rationale, _ = split_ending(sample.responses["detailed", "correct"], "detailed", sample.gold)
    if sample.gold.isdigit():
        near = [int(sample.gold) + step for step in (-3, -2, -1, 1, 2, 3)]
        wrong = [str(n) for n in near if arithmetic.LOWEST <= n <= arithmetic.HIGHEST]
    elif sample.gold in ("yes", "no"):
        wrong = [{"yes": "no", "no": "yes"}[sample.gold]]
    else:
        wrong = [kind for kind in taxonomy.KINDS if kind in sample.instructions["detailed"] and kind != sample.gold]
    return with_final(rationale, rng.choice(wrong))


def _mismatched(sample: Sample, other: Sample, rng: Random) -> str:
    """The right response to another question of the same task."""
    return other.responses["detailed", "correct"]


def _word_salad(sample: Sample, other: Sample, rng: Random) -> str:
    """As many words as the right response has, its own and those of another one, in random order."""
    words = sample.responses["detailed", "correct"].split()
    pool: Sequence[str] = [*words, *other.responses["detailed", "correct"].split()]
    return " ".join(rng.sample(pool, len(words)))


#: By fault, how a wrong response is made of a sample and another one of its task.
WRONG: dict[str, Callable[[Sample, Sample, Random], str]] = {
    "noisy": _noisy,
    "shuffled": _shuffled,
    "contradictory": _contradictory,
    "mismatched": _mismatched,
    "word_salad": _word_salad,
}
