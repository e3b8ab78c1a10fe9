"""Images that look alike, by their perceptual hashes."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Of 256 bits. A photograph saved as JPEG of quality 50, at half the size, in gray or 20 % brighter stays below; two
# chest X-rays of different patients, which a coarser hash takes for one, differ in 38 and more (benchmarks/looks.py).
# Of crops only slight ones are found.
NEAR_BITS = 24
# Distances computed at once; 8 bytes each.
BLOCK = 2**18


def near_pairs(some: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of `some` and `others` that look alike, and the bits they differ in, some rows at a time.

    some (n, 4), others (m, 4): uint64, see `hash_bits`. Memory does not grow with n or m beyond the pairs of a block.
    """
    rows = max(1, BLOCK // max(1, len(others)))
    for start in range(0, len(some), rows):
        first, second = _maybe(some[start : start + rows], others)
        bits = _distance(some[first + start], others[second])
        near = bits <= NEAR_BITS
        yield first[near] + start, second[near], bits[near]


def near_duplicate_sets(bits: np.ndarray) -> np.ndarray:
    """The number of the set each row belongs to, (n,) int: those that look alike, also over others, are in one.

    bits: (n, 4) uint64, see `hash_bits`. Of the frames of a film nearly all pairs look alike: no pair is kept, and those
    that are in one set already are not compared.
    """
    sets = np.arange(len(bits))
    rows = max(1, BLOCK // max(1, len(bits)))
    for start in range(0, len(bits), rows):
        first, second = (place + start for place in _maybe(bits[start : start + rows], bits[start:]))
        apart = sets[first] != sets[second]
        first, second = first[apart], second[apart]
        near = _distance(bits[first], bits[second]) <= NEAR_BITS
        if near.any():
            pairs = sets[first[near]], sets[second[near]]
            graph = coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(len(bits), len(bits)))
            sets = connected_components(graph, directed=False)[1][sets]
    return sets


def _maybe(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that a quarter of the bits does not rule out yet, which are few where images differ."""
    return np.nonzero(np.bitwise_count(some[:, None, 0] ^ others[None, :, 0]) <= NEAR_BITS)


def _distance(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.bitwise_count(some ^ others).sum(axis=1)


def hash_bits(looks: pd.Series) -> np.ndarray:
    """Hashes of 64 hexadecimal digits each as (n, 4) uint64."""
    return np.frombuffer(bytes.fromhex("".join(looks)), ">u8").reshape(-1, 4).astype(np.uint64)


def near_duplicates_across_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Validation and test images that look like an image of another side, each with the most similar one.

    table: columns split, look, name. Returns columns name, split, like, like_split, bits (0 to 24).
    """
    # Of images of one side that look the same, one stands for all.
    distinct = table.groupby(["look", "split"], sort=True, as_index=False)["name"].first()
    found = []
    for side in ("validation", "test"):
        of_side, others = distinct[distinct["split"] == side], distinct[distinct["split"] != side]
        for first, second, bits in near_pairs(hash_bits(of_side["look"]), hash_bits(others["look"])):
            pairs = pd.DataFrame({"look": of_side["look"].to_numpy()[first], "other": second, "bits": bits})
            nearest = pairs.sort_values(["bits", "other"]).drop_duplicates("look")
            like = others.iloc[nearest["other"]]
            found.append(nearest.assign(split=side, like=like["name"].to_numpy(), like_split=like["split"].to_numpy()))
    columns = ["name", "split", "like", "like_split", "bits"]
    if not found:
        return pd.DataFrame(columns=columns)
    return table.merge(pd.concat(found), on=["look", "split"])[columns]
