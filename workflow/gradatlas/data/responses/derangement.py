"""The corrected irrelevant response: another sample's, never oneself, its label never right.

Donors are found by a greedy matching of recipients and donors in the order of a hash of each pair. A pair's hash
depends on the seed and its two samples alone, so an edit of one sample reaches only those that compete with it for
a donor: of 500 samples a handful get another one, where a shift along a line would move whole stretches of it.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from gradatlas.study.seeds import seeded_hash

# Of each recipient only its best so many free donors are looked at in one pass; a later pass takes those left over.
_CANDIDATES = 64
# Rows of the matrix of pairs held in memory at one time.
_ROWS = 512
_NEVER = np.iinfo(np.uint64).max


def derange(labels: Mapping[str, str], seed: int) -> dict[str, str | None]:
    """A donor for every sample: another sample whose label differs.

    `labels` maps `sample_id` to its label (for data without labels give each sample one of its own). Where no label
    holds more than half of the samples, every sample is a donor exactly once; otherwise the samples of the other
    labels are used at most ceil(majority / others) times, each as often as another within one. Where all labels are
    equal there is no donor: None. The order of `labels` is irrelevant.
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
            # Round by round: each of the others lends once more before any lends twice more.
            left, _ = matching.greedy(left, others)
    else:
        left, free = matching.greedy(everyone, everyone)
        if left.size:
            matching.exchange(left, free)
    return {ids[recipient]: ids[donor] for recipient, donor in sorted(matching.donor.items())}


class _Matching:
    """Recipients and donors as positions in `ids`; `donor` maps the recipients served so far."""

    def __init__(self, ids: list[str], labels: list[str], seed: int):
        hashes = np.array([list(seeded_hash(seed, sample_id)[:16]) for sample_id in ids], dtype=np.uint8)
        halves = np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)
        self.taking, self.giving = halves[:, 0], halves[:, 1]
        self.label = np.unique(labels, return_inverse=True)[1]
        self.donor: dict[int, int] = {}

    def weights(self, recipients: np.ndarray, donors: np.ndarray) -> np.ndarray:
        """A hash of every pair; the highest number where the two labels are equal."""
        weights = _mixed(self.taking[recipients][:, None] ^ self.giving[donors][None, :])
        weights[self.label[recipients][:, None] == self.label[donors][None, :]] = _NEVER
        return weights

    def greedy(self, recipients: np.ndarray, donors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Serve recipients pair by pair, lowest hash first, each donor once; returns who and what is left over."""
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
        """Serve recipients that are left over with donors of their own label.

        Each takes the donor of a pair that has nothing to do with that label, and that pair's recipient takes one of
        `donors`. Since the label holds at most half of the samples, there are at least as many such pairs as needed.
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
    """SplitMix64's finaliser: every bit of a 64-bit number changes every bit of its hash with even chance."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
