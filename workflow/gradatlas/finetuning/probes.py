"""The responses whose log-probability is followed: thirteen to every probed prompt, by type.

| type | the paper's | what | length |
|---|---|---|---|
| chosen | y_u+ | the chosen response | its own |
| initial | y_init | a sample from the model that finetuning starts from (not from another one) | its own |
| self_rephrase | y_selfr | that model's own rephrase of the chosen response | its own |
| chosen_semantic | y_gpts+ | the chosen response's meaning in other words | its own |
| chosen_format | y_gptf+ | another meaning in the chosen response's form | its own |
| rejected, rejected_semantic, rejected_format | y_u-, ... | the same of the rejected response | its own |
| irrelevant_train | y_j+ | the chosen response of another *trained* prompt | nearest to chosen |
| irrelevant_held_out | y_test+ | the chosen response of a prompt that is never trained | nearest to chosen |
| unrelated | y_hum | fluent text about something else | as many words as chosen |
| permuted | y_urnd+ | the chosen response's words, shuffled | the same words |
| random_tokens | y_rnd | words drawn from the whole vocabulary | as many tokens as chosen |

(For y_rnd the study's code shuffles the words of an irrelevant response.) Every response keeps one leading space. A
text that cannot be had is a row with a status, not a gap.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, sample
from gradatlas.finetuning.tables import PROBES
from gradatlas.study.probe_types import REPHRASED, TYPES
from gradatlas.study.seeds import seeded_hash

#: What a model is asked for its own rephrase.
SELF_REPHRASE = "\n\nHuman: Say in other words: {answer}\n\nAssistant:"
_BATCH = 32  # samples at a time

Rephrases = Callable[[Pair, str], str | None]


def build_probes(
    pairs: str,
    model: Any,
    encoder: ResponseEncoder,
    rephrases: Rephrases,
    *,
    train: int,
    held_out: int,
    seed: int,
    max_new_tokens: int,
) -> list[dict]:
    """Rows of the ``probes`` table: `train` probed prompts that are trained on and `held_out` that never are.

    `model` is what finetuning starts from. `rephrases` gives the text of a pair and a type of `REPHRASED`, or None
    (status ``missing``). Which prompts are probed depends on `seed` and the pairs. Raises `InputError` where there are
    fewer pairs than asked for, or a ``held_out`` prompt is trained on.
    """
    chosen = probed_pairs(pairs, train, held_out, seed)
    trained, kept = read_pairs(pairs, "train"), read_pairs(pairs, "held_out")
    if both := {pair["prompt"] for pair in trained} & {pair["prompt"] for pair in kept}:
        raise InputError(f"{pairs}: prompt {sorted(both)[0]!r} is trained on and held out; make the table again")
    # What is irrelevant comes from all pairs of a split, probed or not.
    sources = {"irrelevant_train": trained, "irrelevant_held_out": kept}
    lengths = {pair["pair_id"]: encoder.encode_uncut(pair["prompt"], pair["chosen"]).tokens for pair in trained + kept}
    own = _sampled(model, encoder, chosen, seed, max_new_tokens)
    words = _words(encoder.tokenizer)
    rows = []
    for pair in chosen:
        rng = Random(seeded_hash(seed, f"probe {pair['pair_id']}"))
        texts: dict[str, tuple[str | None, list[str]]] = {
            "chosen": (pair["chosen"], []),
            "rejected": (pair["rejected"], []),
            "permuted": (_permuted(pair["chosen"], rng), []),
            "random_tokens": (_random_tokens(encoder, pair["prompt"], words, lengths[pair["pair_id"]], rng), []),
            **{name: (own[pair["pair_id"], name], []) for name in ("initial", "self_rephrase")},
            **{name: (rephrases(pair, name), []) for name in REPHRASED},
        }
        for name, others in sources.items():
            other = _nearest(pair, others, lengths, rng)
            texts[name] = (other["chosen"], [other["pair_id"]]) if other else (None, [])
        rows += [_row(pair, name, *texts[name]) for name in TYPES]
    counts = Counter((row["type"], row["status"]) for row in rows if row["status"] != "ok")
    progress(f"{len(rows)} probes" + "".join(f", {name} {why}: {n}" for (name, why), n in sorted(counts.items())))
    return rows


def probed_pairs(pairs: str, train: int, held_out: int, seed: int) -> list[Pair]:
    """The pairs whose prompts are probed, drawn by `seed`; `InputError` where there are fewer than asked for."""
    found = []
    for split, count in (("train", train), ("held_out", held_out)):
        rows = read_pairs(pairs, split)
        if count > len(rows):
            key = {"train": "probes", "held_out": "held_out_probes"}[split]
            raise InputError(
                f"{pairs}: {count} probes of split '{split}' asked for, it has {len(rows)} usable pairs; set config "
                f"key dynamics.{key} to {len(rows)} or less"
            )
        found += ranked(rows, seed)[:count]
    return found


def ranked(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """In the order in which pairs are drawn to be probed."""
    return sorted(pairs, key=lambda pair: seeded_hash(seed, f"probed {pair['pair_id']}"))


def write_probes(rows: Sequence[dict], path: str | Path, facts: Mapping[str, Any]) -> None:
    """Write the ``probes`` table."""
    write_table(PROBES, list(rows), path, facts)


def read_probes(path: str, encoder: ResponseEncoder) -> tuple[dict[str, tuple[dict, EncodedResponse]], list[dict]]:
    """The probes that can be followed, by id: (probe_id, split, type) and tokens; and the others with their status."""
    watched, unwatched = {}, []
    for row in read_table(PROBES, path).to_pylist():
        named = {name: row[name] for name in ("probe_id", "split", "type")}
        encoded = encoder.encode(row["prompt"], row["response"]) if row["status"] == "ok" else None
        if encoded:
            watched[row["probe_id"]] = (named, encoded)
        else:
            unwatched.append({**named, "status": row["status"] if row["status"] != "ok" else "too_long"})
    if not watched:
        raise InputError(f"{path}: no probe fits the window of {encoder.max_length} tokens; raise max_length")
    return watched, unwatched


def no_rephrases(pair: Pair, name: str) -> None:
    """Where nobody writes any: probes of these types are ``missing``."""


def grammar_rephrases(seed: int) -> Rephrases:
    """The miniature's rephrases: other slots of its grammar."""

    def write(pair: Pair, name: str) -> str:
        rng = Random(seeded_hash(seed, f"{name} {pair['pair_id']}"))
        if name == "unrelated":
            return grammar.unrelated(rng)(len(pair["chosen"].split()))
        part, _, kind = name.partition("_")
        answer = grammar.parse(pair[part])
        if answer is None:
            raise InputError(f"pair '{pair['pair_id']}': its {part} response is not of the miniature's grammar")
        rephrase = grammar.semantic_rephrase if kind == "semantic" else grammar.format_rephrase
        return rephrase(answer, rng).text

    return write


def _row(pair: Pair, name: str, text: str | None, sources: list[str]) -> dict:
    status = "missing" if text is None else "ok" if text.strip() else "empty"
    return {
        "probe_id": f"{pair['pair_id']}/{name}",
        "split": pair["split"],
        "type": name,
        "prompt": pair["prompt"],
        "response": _spaced(text) if status == "ok" else None,
        "sources": [pair["pair_id"], *sources],
        "status": status,
    }


def _spaced(text: str) -> str:
    """With its leading space: a response without one begins with a token that no answer begins with."""
    return text if text[:1].isspace() else f" {text}"


def _sampled(
    model, encoder: ResponseEncoder, pairs: Sequence[Pair], seed: int, room: int
) -> dict[tuple[str, str], str]:
    """By pair and type, what the model says to the prompt, and to the request to say the chosen response otherwise.

    Cut where it goes on with the other's turn. A prompt that fills the window leaves an empty text.
    """
    found = {}
    for name in ("initial", "self_rephrase"):
        asked = {
            pair["pair_id"]: pair["prompt"]
            if name == "initial"
            else SELF_REPHRASE.format(answer=pair["chosen"].strip())
            for pair in pairs
        }
        lengths = {key: len(encoder.encode_prompt(prompt)) for key, prompt in asked.items()}
        fitting = [key for key in asked if lengths[key] + 2 <= encoder.max_length]
        roomy = [key for key in fitting if lengths[key] + room + 1 <= encoder.max_length]
        # A prompt that leaves less room than asked for has a batch of its own: it would cut the others' answers.
        batches = [roomy[first : first + _BATCH] for first in range(0, len(roomy), _BATCH)]
        for keys in batches + [[key] for key in fitting if key not in roomy]:
            drawn = int.from_bytes(seeded_hash(seed, f"{name} {keys[0]}")[:4])
            said = sample(model, encoder, [asked[key] for key in keys], drawn, room)
            for key, encoded in zip(keys, said, strict=True):
                text = encoder.tokenizer.decode(encoded.ids[encoded.start : -1], skip_special_tokens=True)
                found[key, name] = text.partition("\n\nHuman:")[0].rstrip()
        found |= {(key, name): "" for key in asked if key not in fitting}
    return found


def _permuted(text: str, rng: Random) -> str:
    words = text.split()
    # One that comes out as it was is shuffled again, where the words allow another order.
    for _ in range(20):
        shuffled = rng.sample(words, len(words))
        if shuffled != words:
            break
    return "".join(f" {word}" for word in shuffled)


def _words(tokenizer: Any) -> list[str]:
    """The vocabulary's tokens that are a space and a word, which stay one token wherever they stand."""
    special = set(tokenizer.all_special_ids)
    # Behind another token: some tokenizers leave the space out at the start of a text.
    before = tokenizer(":", add_special_tokens=False)["input_ids"]
    known = len(tokenizer.decode(before))
    texts = [tokenizer.decode([*before, i])[known:] for i in range(len(tokenizer)) if i not in special]
    return [text for text in texts if len(text) > 1 and text[0] == " " and text[1:].isalnum() and text.isascii()]


def _random_tokens(encoder: ResponseEncoder, prompt: str, words: Sequence[str], count: int, rng: Random) -> str | None:
    """Words drawn from the vocabulary, `count` tokens with the end token; nearly as many where they never fit.

    None where the vocabulary has no words.
    """
    if not words:
        return None
    drawn = ("".join(rng.choices(words, k=count - 1)) for _ in range(50))
    off = ((abs(encoder.encode_uncut(prompt, text).tokens - count), text) for text in drawn)
    best = next(off)
    while best[0] and (other := next(off, None)):
        best = min(best, other)
    return best[1]


def _nearest(pair: Pair, others: Sequence[Pair], lengths: Mapping[str, int], rng: Random) -> Pair | None:
    """Of the other prompts' pairs with another chosen response, one whose length is nearest; ties are drawn."""
    fitting = [each for each in others if each["prompt"] != pair["prompt"] and each["chosen"] != pair["chosen"]]
    if not fitting:
        return None
    wanted = lengths[pair["pair_id"]]
    least = min(abs(lengths[each["pair_id"]] - wanted) for each in fitting)
    return rng.choice([each for each in fitting if abs(lengths[each["pair_id"]] - wanted) == least])
