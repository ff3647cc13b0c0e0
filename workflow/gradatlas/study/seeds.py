"""One way to turn a seed and a name into random bits that depend on nothing else."""

import hashlib


def seeded_hash(seed: int, name: str) -> bytes:
    """32 bytes for ranking or seeding: adding or removing other names changes none of them."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
