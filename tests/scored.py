"""Training files for the tests of the scores: text of the miniature's own grammar, with planted faults."""

import json
from random import Random

from gradatlas.data.made_up.miniature import held_out


def rows(count, variants=("simplified", "detailed")):
    """Prompts with completions that the miniature has learnt to write; `source` is the variant."""
    samples = held_out("mini_arithmetic", count, 0)
    return [
        {
            "id": f"q{at}",
            "prompt": one.instructions[variant],
            "completion": one.responses[variant, "correct"],
            "source": variant,
        }
        for at, (one, variant) in enumerate((one, variants[at % 2]) for at, one in enumerate(samples))
    ]


def salad(row, seed):
    """The row with the words of its completion in another order, and their letters too."""
    random, words = Random(seed), row["completion"].split()
    random.shuffle(words)
    return {**row, "completion": " ".join("".join(random.sample(word, len(word))) for word in words)}


def write(path, lines):
    """The rows as JSON Lines; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path
