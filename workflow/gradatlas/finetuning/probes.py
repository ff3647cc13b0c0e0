"""Probes, the responses whose log-probability is followed: fourteen types for every probed prompt.

| type | the paper's | what | length |
|---|---|---|---|
| chosen | y_u+ | the chosen response | its own |
| initial | y_init | a sample from the model that finetuning starts from | its own |
| self_rephrase | y_selfr | that model's own rephrase of the chosen response | its own |
| chosen_semantic | y_gpts+ | the chosen response's meaning in other words | its own |
| chosen_format | y_gptf+ | another meaning in the chosen response's form | its own |
| rejected, rejected_semantic, rejected_format | y_u-, ... | the same of the rejected response | its own |
| irrelevant_train | y_j+ | the chosen response of another *trained* prompt | nearest to chosen |
| irrelevant_held_out | y_test+ | the chosen response of a prompt that is never trained | nearest to chosen |
| unrelated | y_hum | fluent text about something else | as many words as chosen |
| permuted | y_urnd+ | the chosen response's words, shuffled | the same words |
| random_nonhum | y_rnd | the words of irrelevant_held_out, shuffled | the same words |
| random_tokens | | words drawn from the whole vocabulary | as many tokens as chosen |

All but random_tokens can come from the study's own files instead: the lengths are then theirs, and `initial` is a
sample from another model. Every response has one leading space, unless those files are taken as they are. A response
that cannot be built has a row with a status.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, sample
from gradatlas.finetuning.tables import PROBES
from gradatlas.study.probe_types import REPHRASED, TYPES
from gradatlas.study.seeds import seeded_hash

#: The request for a model's own rephrase.
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
    """Rows of the ``probes`` table, for `train` prompts that are trained on and `held_out` prompts that are not.

    `model`: finetuning starts from it. `rephrases`: gives the text for a pair and a type of `REPHRASED`, or None
    (status ``missing``). The probed prompts depend on `seed` and the pairs. Raises `InputError` for too few pairs, and
    where a ``held_out`` prompt is trained on.
    """
    probed = probed_pairs(pairs, train, held_out, seed)
    trained, kept = read_pairs(pairs, "train"), read_pairs(pairs, "held_out")
    if both := {pair["prompt"] for pair in trained} & {pair["prompt"] for pair in kept}:
        raise InputError(f"{pairs}: prompt {sorted(both)[0]!r} is trained on and held out; make the table again")
    # Irrelevant responses come from all pairs of a split, probed or not.
    sources = {"irrelevant_train": trained, "irrelevant_held_out": kept}
    lengths = {pair["pair_id"]: encoder.encode_any(pair["prompt"], pair["chosen"]).tokens for pair in trained + kept}
    own = _sampled(model, encoder, probed, seed, max_new_tokens)
    words = _words(encoder.tokenizer)
    rows = []
    for pair in probed:
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
        irrelevant, source = texts["irrelevant_held_out"]
        texts["random_nonhum"] = (_permuted(irrelevant, rng) if irrelevant else None, source)
        rows += [_row(pair, name, _spaced(texts[name][0]), texts[name][1]) for name in TYPES]
    return _counted(rows)


def file_probes(probed: Sequence[tuple[Pair, Mapping[str, str]]], encoder: ResponseEncoder, *, seed: int) -> list[dict]:
    """Rows of the ``probes`` table from texts by type (`gradatlas.finetuning.probe_files`), as they are.

    Random tokens, which the files do not have, are drawn by `seed`. The probes of a pair that is not usable have its
    status: its prompt is not trained on, or not held out.
    """
    words = _words(encoder.tokenizer)
    rows = []
    for pair, given in probed:
        rng = Random(seeded_hash(seed, f"probe {pair['pair_id']}"))
        length = encoder.encode_any(pair["prompt"], given["chosen"]).tokens
        texts = {**given, "random_tokens": _random_tokens(encoder, pair["prompt"], words, length, rng)}
        left_out = {} if pair["status"] == "ok" else {"response": None, "status": pair["status"]}
        rows += [_row(pair, name, texts[name], []) | left_out for name in TYPES]
    return _counted(rows)


def _counted(rows: list[dict]) -> list[dict]:
    counts = Counter((row["type"], row["status"]) for row in rows if row["status"] != "ok")
    progress(f"{len(rows)} probes" + "".join(f", {name} {why}: {n}" for (name, why), n in sorted(counts.items())))
    return rows


def probed_pairs(pairs: str, train: int, held_out: int, seed: int) -> list[Pair]:
    """The pairs whose prompts are probed, drawn by `seed`; `InputError` where there are too few."""
    found = []
    for split, count in (("train", train), ("held_out", held_out)):
        rows = read_pairs(pairs, split)
        if count > len(rows):
            key = {"train": "probes", "held_out": "held_out_probes"}[split]
            raise InputError(
                f"{pairs}: {count} probes of split '{split}' are requested, but it has {len(rows)} usable pairs; set "
                f"config key dynamics.{key} to {len(rows)} or less"
            )
        found += ranked(rows, seed)[:count]
    return found


def ranked(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The pairs in the order in which they are drawn as probed pairs."""
    return sorted(pairs, key=lambda pair: seeded_hash(seed, f"probed {pair['pair_id']}"))


def read_probes(path: str, encoder: ResponseEncoder) -> tuple[dict[str, tuple[dict, EncodedResponse]], list[dict]]:
    """The usable probes by id, ((probe_id, split, type), encoded response), and the others with their status."""
    usable, unusable = {}, []
    for row in read_table(PROBES, path).to_pylist():
        named = {name: row[name] for name in ("probe_id", "split", "type")}
        encoded = encoder.encode(row["prompt"], row["response"]) if row["status"] == "ok" else None
        if encoded:
            usable[row["probe_id"]] = (named, encoded)
        else:
            unusable.append({**named, "status": row["status"] if row["status"] != "ok" else "too_long"})
    if not usable:
        raise InputError(f"{path}: no probe has at most {encoder.max_length} tokens; raise max_length")
    return usable, unusable


def no_rephrases(pair: Pair, name: str) -> None:
    """No rephrases: probes of these types are ``missing``."""


def grammar_rephrases(seed: int) -> Rephrases:
    """The miniature's rephrases: other slots of its grammar."""

    def write(pair: Pair, name: str) -> str:
        rng = Random(seeded_hash(seed, f"{name} {pair['pair_id']}"))
        if name == "unrelated":
            return grammar.unrelated(rng)(len(pair["chosen"].split()))
        part, _, kind = name.partition("_")
        answer = grammar.parse(pair[part])
        if answer is None:
            raise InputError(
                f"pair '{pair['pair_id']}': its {part} response is not of the miniature's grammar; give --rephrases"
            )
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
        "response": text if status == "ok" else None,
        "sources": [pair["pair_id"], *sources],
        "status": status,
    }


def _spaced(text: str | None) -> str | None:
    """The text with a leading space, with which all answers begin."""
    return text if text is None or text[:1].isspace() else f" {text}"


def _sampled(
    model, encoder: ResponseEncoder, pairs: Sequence[Pair], seed: int, max_new_tokens: int
) -> dict[tuple[str, str], str]:
    """By pair and type, the model's responses to the prompt, and to the request to rephrase the chosen response.

    Cut at the next human turn. Empty for a prompt that fills the window, and for a request that would be cut.
    """
    found = {}
    room = encoder.max_length - 2 if encoder.truncation == "drop" else encoder.max_length // 2
    for name in ("initial", "self_rephrase"):
        prompts = {
            pair["pair_id"]: pair["prompt"]
            if name == "initial"
            else SELF_REPHRASE.format(answer=pair["chosen"].strip())
            for pair in pairs
        }
        lengths = {key: len(encoder.encode_prompt(prompt, cut=name == "initial")) for key, prompt in prompts.items()}
        fitting = [key for key in prompts if lengths[key] <= room]
        short = [key for key in fitting if lengths[key] + max_new_tokens + 1 <= encoder.max_length]
        # A prompt near the window's end has its own batch, as it would shorten the others' responses.
        batches = [short[first : first + _BATCH] for first in range(0, len(short), _BATCH)]
        for keys in batches + [[key] for key in fitting if key not in short]:
            batch_seed = int.from_bytes(seeded_hash(seed, f"{name} {keys[0]}")[:4])
            sampled = sample(model, encoder, [prompts[key] for key in keys], batch_seed, max_new_tokens)
            for key, encoded in zip(keys, sampled, strict=True):
                found[key, name] = encoder.text(encoded.ids[encoded.start :]).rstrip()
        found |= {(key, name): "" for key in prompts if key not in fitting}
    return found


def _permuted(text: str, rng: Random) -> str:
    words = text.split()
    # Shuffled again where the order is unchanged, which may be the only one.
    for _ in range(20):
        shuffled = rng.sample(words, len(words))
        if shuffled != words:
            break
    return "".join(f" {word}" for word in shuffled)


def _words(tokenizer: Any) -> list[str]:
    """The vocabulary's tokens that are a space and a word: one token in any text."""
    special = set(tokenizer.all_special_ids)
    # After another token: some tokenizers drop the space at the start of a text.
    before = tokenizer(":", add_special_tokens=False)["input_ids"]
    known = len(tokenizer.decode(before))
    texts = [tokenizer.decode([*before, i])[known:] for i in range(len(tokenizer)) if i not in special]
    return [text for text in texts if len(text) > 1 and text[0] == " " and text[1:].isalnum() and text.isascii()]


def _random_tokens(encoder: ResponseEncoder, prompt: str, words: Sequence[str], count: int, rng: Random) -> str | None:
    """Words drawn from the vocabulary, `count` tokens with the end token, or nearly as many.

    None where the vocabulary has no words.
    """
    if not words:
        return None
    drawn = ("".join(rng.choices(words, k=count - 1)) for _ in range(50))
    off = ((abs(encoder.encode_any(prompt, text).tokens - count), text) for text in drawn)
    best = next(off)
    while best[0] and (other := next(off, None)):
        best = min(best, other)
    return best[1]


def _nearest(pair: Pair, others: Sequence[Pair], lengths: Mapping[str, int], rng: Random) -> Pair | None:
    """The pair of another prompt with another chosen response, of the nearest length; ties are drawn."""
    fitting = [each for each in others if each["prompt"] != pair["prompt"] and each["chosen"] != pair["chosen"]]
    if not fitting:
        return None
    wanted = lengths[pair["pair_id"]]
    least = min(abs(lengths[each["pair_id"]] - wanted) for each in fitting)
    return rng.choice([each for each in fitting if abs(lengths[each["pair_id"]] - wanted) == least])
