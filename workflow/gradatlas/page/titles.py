"""The titles of models and datasets, which readers see in place of keys."""

from collections import Counter
from collections.abc import Mapping


class Titles(dict[str, str]):
    """Titles by key; what has none is named by its key, and what shares one has its key, too."""

    def __init__(self, given: Mapping[str, str]):
        taken = Counter(given.values())
        super().__init__({key: name if taken[name] == 1 else f"{name} ({key})" for key, name in given.items()})

    def __missing__(self, key: str) -> str:
        return key
