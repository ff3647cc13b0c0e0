"""The map of donors for irrelevant responses: another sample, whose label differs.

Recipients and donors are matched greedily in the order of a hash of each pair. A pair's hash depends only on the seed
and its two samples, so that an edit of one sample affects only those that compete for the same donor: a few of 500.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from gradatlas.study.seeds import seeded_hash

# Free donors considered for each recipient in one pass; later passes serve the recipients that are left.
_CANDIDATES = 64
# Rows of the matrix of pairs held in memory at one time.
_ROWS = 512
_NEVER = np.iinfo(np.uint64).max


def derange(labels: Mapping[str, str], seed: int) -> dict[str, str | None]:
    """A donor for every sample: another sample whose label differs.

    `labels`: by `sample_id` (without labels, give each sample a different one). If no label has more than half of the
    samples, every sample is a donor exactly once; otherwise the samples of the other labels are used at most
    ceil(majority / others) times, equally often within one. If all labels are equal, there are no donors: None. The
    order of `labels` does not matter.
    """
    ids = sorted(labels)
    if len(set(labels.values())) < 2:
        return dict.fromkeys(ids)
    matching = _Matching(ids, [labels[sample_id] for sample_id in ids], seed)
    everyone = np.arange(len(ids))
    commonest, count = Counter(matching.label.tolist()).most_common(1)[0]
    if 2 * count > len(ids):
        left, others = (np.flatnonzero(matching.label == commonest), np.flatnonzero(matching.label != commonest))
        matching.greedy(others, left)
        while left.size:
            # Round by round, so that the others are used equally often.
            left, _ = matching.greedy(left, others)
    else:
        left, free = matching.greedy(everyone, everyone)
        if left.size:
            matching.exchange(left, free)
    return {ids[recipient]: ids[donor] for recipient, donor in sorted(matching.donor.items())}


class _Matching:
    """Recipients and donors are positions in `ids`; `donor`: by recipient, so far."""

    def __init__(self, ids: list[str], labels: list[str], seed: int):
        hashes = np.array([list(seeded_hash(seed, sample_id)[:16]) for sample_id in ids], dtype=np.uint8)
        halves = np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)
        self.taking, self.giving = halves[:, 0], halves[:, 1]
        self.label = np.unique(labels, return_inverse=True)[1]
        self.donor: dict[int, int] = {}

    def weights(self, recipients: np.ndarray, donors: np.ndarray) -> np.ndarray:
        """A hash of every pair; the highest number where the labels are equal."""
        weights = _mixed(self.taking[recipients][:, None] ^ self.giving[donors][None, :])
        weights[self.label[recipients][:, None] == self.label[donors][None, :]] = _NEVER
        return weights

    def greedy(self, recipients: np.ndarray, donors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match recipients and donors, lowest hash first, each donor once; returns the unmatched of both."""
        while recipients.size and donors.size:
            weight, taker, giver = self._candidates(recipients, donors)
            if not weight.size:
                break
            wanting, free = set(recipients.tolist()), set(donors.tolist())
            order = np.lexsort((giver, taker, weight))
            for recipient, donor in zip(taker[order].tolist(), giver[order].tolist(), strict=True):
                if recipient in wanting and donor in free:
                    self.donor[recipient] = donor
                    wanting.discard(recipient)
                    free.discard(donor)
            recipients, donors = (np.array(sorted(rest), dtype=np.intp) for rest in (wanting, free))
        return recipients, donors

    def _candidates(self, recipients: np.ndarray, donors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(hash, recipient, donor) of the best pairs of each recipient."""
        weight, taker, giver = [], [], []
        for start in range(0, recipients.size, _ROWS):
            rows = recipients[start : start + _ROWS]
            weights = self.weights(rows, donors)
            best = np.broadcast_to(np.arange(donors.size), weights.shape)
            if donors.size > _CANDIDATES:
                best = np.argpartition(weights, _CANDIDATES - 1, axis=1)[:, :_CANDIDATES]
            kept = np.take_along_axis(weights, best, axis=1)
            row, column = np.nonzero(kept < _NEVER)
            weight.append(kept[row, column])
            taker.append(rows[row])
            giver.append(donors[best[row, column]])
        return np.concatenate(weight), np.concatenate(taker), np.concatenate(giver)

    def exchange(self, recipients: np.ndarray, donors: np.ndarray) -> None:
        """Match the remaining recipients, where the remaining donors have their label.

        Each gets the donor of a pair without that label, and that pair's recipient gets one of `donors`. As the label
        has at most half of the samples, there are enough such pairs.
        """
        label = self.label[recipients[0]]
        pairs = [(r, d) for r, d in sorted(self.donor.items()) if label not in (self.label[r], self.label[d])]
        takers, givers = (np.array(side) for side in zip(*pairs, strict=True))
        order = np.argsort(self.weights(recipients, givers), axis=None, kind="stable")
        wanting, freed = set(recipients.tolist()), {}
        for row, column in zip(*np.divmod(order, givers.size), strict=True):
            recipient = int(recipients[row])
            if recipient in wanting and column not in freed:
                self.donor[recipient] = int(givers[column])
                freed[column] = int(takers[column])
                wanting.discard(recipient)
            if not wanting:
                break
        self.greedy(np.array(sorted(freed.values()), dtype=np.intp), donors)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a hash of 64-bit numbers."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
