"""Shares of a whole and their intervals, for rooms that do without torch."""

import math


def wilson(correct: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson 95 % interval of a share.

    >>> [round(bound, 3) for bound in wilson(80, 100)]
    [0.711, 0.867]
    """
    share = correct / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)
