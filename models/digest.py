"""By which manager and node see whether they agree, without listing anything: 256 sums of hashes, one per bucket.

Each side hashes (id, wanted, outcome if done equals wanted, else open) of every resource it knows on the node and adds
the hashes up modulo 2^62: a sum and one more hash still fit into a signed column. A change costs two hashes; a
difference names its bucket.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

BUCKETS = 256
MODULUS = 1 << 62


def row_hash(resource_id: int, wanted: int, outcome: int) -> int:
    """The 62-bit hash of one row. `outcome` is 0 (open) unless the node is done with `wanted`."""
    data = f"{resource_id}.{wanted}.{outcome}".encode()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") % MODULUS


def bucket(resource_id: int) -> int:
    """The bucket a resource falls into."""
    return resource_id % BUCKETS


class Digest:
    """The sums of one node."""

    def __init__(self, sums: Iterable[int] = ()) -> None:
        self.sums = list(sums) or [0] * BUCKETS

    def add(self, resource_id: int, wanted: int, outcome: int) -> None:
        """Counts a row in."""
        at = bucket(resource_id)
        self.sums[at] = (self.sums[at] + row_hash(resource_id, wanted, outcome)) % MODULUS

    def drop(self, resource_id: int, wanted: int, outcome: int) -> None:
        """Counts a row out that was added with the same values."""
        at = bucket(resource_id)
        self.sums[at] = (self.sums[at] - row_hash(resource_id, wanted, outcome)) % MODULUS

    def text(self) -> str:
        """All sums as hex, 16 characters a bucket."""
        return "".join(f"{each:016x}" for each in self.sums)

    def root(self) -> str:
        """One hash over all sums."""
        return blake2b(self.text().encode(), digest_size=8).hexdigest()

    def differing(self, other: Digest) -> list[int]:
        """The buckets in which the two disagree."""
        return [n for n, (mine, theirs) in enumerate(zip(self.sums, other.sums, strict=True)) if mine != theirs]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` spells. Raises ValueError."""
        if len(text) != 16 * BUCKETS:
            raise ValueError(f"a digest is {16 * BUCKETS} characters, not {len(text)}")
        return cls(int(text[at : at + 16], 16) for at in range(0, len(text), 16))
