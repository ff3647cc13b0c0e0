"""Which samples the parts of a shuffled response came from, as far as the texts themselves tell.

The published irrelevant responses are pieced together from other samples' sentences, and their files do not say whose.
A sentence that stands in one sample's response alone gives its sample away.
"""

import re
from collections.abc import Mapping, Sequence

# Finer than any cut the published files were made with (sentence ends, new lines, also written as backslash-n), so
# that every piece of theirs falls into whole pieces of ours; a dot within a number is no sentence end.
_CUT = re.compile(r"(?<!\d)\.(?!\d)|\n|\\n|(?<=[.!?])\s+")


def pieces(response: str) -> list[str]:
    """The sentences and lines of a response, without white space and dots around them, empty ones left out."""
    return [piece for part in _CUT.split(response) if (piece := part.strip(" .\t\r\n"))]


def trace(responses: Sequence[str], originals: Mapping[str, str]) -> list[list[str]]:
    """For every response, the ids of the samples that a piece of it can only have come from, in order of appearance.

    `originals` maps `sample_id` to that sample's own response. A piece that several samples share tells nothing, so
    a list may be incomplete, or empty (a bare "yes"); it is never wrong but for sentences written twice alike.
    """
    owners = _owners(originals)
    found = []
    for response in responses:
        single = [owners[piece] for piece in pieces(response) if len(owners.get(piece, ())) == 1]
        found.append(list(dict.fromkeys(next(iter(owner)) for owner in single)))
    return found


def endings(responses: Sequence[str], originals: Mapping[str, str]) -> list[str | None]:
    """For every response, the id of the one sample whose own response ends with the same piece, else None."""
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
