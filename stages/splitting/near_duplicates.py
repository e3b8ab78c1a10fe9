"""Near duplicates: similar images, by the Hamming distance of their perceptual hashes."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.artifacts.tasks import NEAR_COLUMNS
from stages.splitting.assignment import TRAIN

# Of 256 bits. A photograph differs by less from its copy in JPEG of quality 50, at half the size, in gray or 20 %
# brighter. Chest X-rays of different patients differ by 38 bits or more (benchmarks/perceptual_hashes.py). Of crops,
# only slight ones are detected.
NEAR_BITS = 24
# Distances that are computed at once; 8 bytes each.
BLOCK = 2**18


def near_pairs(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Similar pairs, block by block: rows of `left`, rows of `right`, and the number of bits that differ.

    left (n, 4), right (m, 4): uint64, see `hash_bits`. Memory grows only with the pairs of a block.
    """
    block_rows = max(1, BLOCK // max(1, len(right)))
    for start in range(0, len(left), block_rows):
        left_rows, right_rows = _candidate_pairs(left[start : start + block_rows], right)
        bits = _distance(left[left_rows + start], right[right_rows])
        near = bits <= NEAR_BITS
        yield left_rows[near] + start, right_rows[near], bits[near]


def near_duplicate_groups(bits: np.ndarray) -> np.ndarray:
    """The number of each row's group, (n,) int: the connected components of similar rows.

    bits: (n, 4) uint64, see `hash_bits`. In the frames of a film nearly all pairs are similar. So pairs are not
    stored, and rows that are already in one group are not compared.
    """
    groups = np.arange(len(bits))
    block_rows = max(1, BLOCK // max(1, len(bits)))
    for start in range(0, len(bits), block_rows):
        left, right = (rows + start for rows in _candidate_pairs(bits[start : start + block_rows], bits[start:]))
        separate = groups[left] != groups[right]
        left, right = left[separate], right[separate]
        near = _distance(bits[left], bits[right]) <= NEAR_BITS
        if near.any():
            pairs = groups[left[near]], groups[right[near]]
            graph = coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(len(bits), len(bits)))
            groups = connected_components(graph, directed=False)[1][groups]
    return groups


def _candidate_pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that a quarter of the bits does not rule out; few, unless images are similar."""
    return np.nonzero(np.bitwise_count(left[:, None, 0] ^ right[None, :, 0]) <= NEAR_BITS)


def _distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.bitwise_count(left ^ right).sum(axis=1)


def hash_bits(hashes: pd.Series) -> np.ndarray:
    """Perceptual hashes of 64 hexadecimal digits as (n, 4) uint64."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").reshape(-1, 4).astype(np.uint64)


def near_duplicates_across_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Validation and test images that are similar to an image of another split, each with the most similar one.

    table: columns split, perceptual_hash, name. Returns the columns name, split, similar_to (a name), similar_split,
    bits (0 to 24). Folds from 1 belong to split train: comparing each fold with all others would take several times as
    long, and fold 0 is a sample of them.
    """
    # One image represents all images of a split with the same hash.
    distinct = table.groupby(["perceptual_hash", "split"], sort=True, as_index=False)["name"].first()
    tables = []
    for split in sorted(set(table["split"]) - {TRAIN}):
        inside, outside = distinct[distinct["split"] == split], distinct[distinct["split"] != split]
        hashes = inside["perceptual_hash"].to_numpy()
        for rows, outside_rows, bits in near_pairs(
            hash_bits(inside["perceptual_hash"]), hash_bits(outside["perceptual_hash"])
        ):
            pairs = pd.DataFrame({"perceptual_hash": hashes[rows], "row": outside_rows, "bits": bits})
            nearest = pairs.sort_values(["bits", "row"]).drop_duplicates("perceptual_hash")
            similar = outside.iloc[nearest["row"]]
            tables.append(
                nearest.assign(
                    split=split,
                    similar_to=similar["name"].to_numpy(),
                    similar_split=similar["split"].to_numpy(),
                )
            )
    if not tables:
        return pd.DataFrame(columns=NEAR_COLUMNS)
    pairs = pd.concat(tables)
    return table[["perceptual_hash", "split", "name"]].merge(pairs, on=["perceptual_hash", "split"])[NEAR_COLUMNS]
