"""Tracing the parts of a shuffled response to their samples.

The published irrelevant responses consist of other samples' sentences, without a record of their samples. A sentence
that occurs in only one sample's response identifies it.
"""

import re
from collections.abc import Mapping, Sequence

# Finer than any splitter of the published files (sentence ends, new lines, also written as backslash-n), so that each
# of their units consists of complete pieces. A dot within a number is not the end of a sentence.
_CUT = re.compile(r"(?<!\d)\.(?!\d)|\n|\\n|(?<=[.!?])\s+")


def pieces(response: str) -> list[str]:
    """The sentences and lines of a response that are not empty, without white space and dots around them."""
    return [piece for part in _CUT.split(response) if (piece := part.strip(" .\t\r\n"))]


def trace(responses: Sequence[str], originals: Mapping[str, str]) -> list[list[str]]:
    """For every response, the ids of the samples that its pieces come from, in order of appearance.

    `originals`: each sample's own response, by `sample_id`. A piece that several samples share is ignored, so that a
    list may be incomplete or empty.
    """
    owners = _owners(originals)
    found = []
    for response in responses:
        single = [owners[piece] for piece in pieces(response) if len(owners.get(piece, ())) == 1]
        found.append(list(dict.fromkeys(next(iter(owner)) for owner in single)))
    return found


def endings(responses: Sequence[str], originals: Mapping[str, str]) -> list[str | None]:
    """For every response, the id of the only sample whose own response ends with the same piece; else None."""
    owners = _owners(originals)
    last = {sample_id: pieces(original)[-1:] for sample_id, original in originals.items()}
    found: list[str | None] = []
    for response in responses:
        end = pieces(response)[-1:]
        known = list(owners.get(end[0], ())) if end else []
        found.append(known[0] if len(known) == 1 and last[known[0]] == end else None)
    return found


def _owners(originals: Mapping[str, str]) -> dict[str, set[str]]:
    owners: dict[str, set[str]] = {}
    for sample_id, original in originals.items():
        for piece in pieces(original):
            owners.setdefault(piece, set()).add(sample_id)
    return owners
