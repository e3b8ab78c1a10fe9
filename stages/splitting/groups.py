"""Groups of images that must not be in different splits."""

import re
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.core.errors import UserError
from stages.core.wording import counted
from stages.splitting.near_duplicates import hash_bits, near_duplicate_groups


def group_ids(table: pd.DataFrame, near_duplicates: bool) -> np.ndarray:
    """The number of each image's group, (n,) int.

    table: columns sha256, perceptual_hash, and group and name_group, which may be empty. Images of equal content, of
    one group or of one name_group (see `groups_from_names`) are connected, with `near_duplicates` also similar images.
    A group is a connected component.
    """
    rows = np.arange(len(table))
    neighbors = [
        _first_with_same_key(table["sha256"]),
        *(_first_with_same_key(table[key].where(table[key] != "")) for key in ("group", "name_group")),
    ]
    if near_duplicates:
        hashes = table["perceptual_hash"].drop_duplicates()
        group_of_hash = dict(zip(hashes, near_duplicate_groups(hash_bits(hashes)), strict=True))
        neighbors.append(_first_with_same_key(table["perceptual_hash"].map(group_of_hash)))
    edges = (np.tile(rows, len(neighbors)), np.concatenate(neighbors))
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(len(table), len(table)))
    return connected_components(graph, directed=False)[1]


def _first_with_same_key(keys: pd.Series) -> np.ndarray:
    """The position of the first row with the same key, (n,) int; for a row without a key, its own position."""
    positions = pd.Series(np.arange(len(keys)), keys.index)
    return positions.groupby(keys).transform("first").fillna(positions).to_numpy(int)


def groups_from_names(pattern: str, names: pd.Series, where: str) -> pd.Series:
    """The match of a regular expression, or of its parentheses, in each file name; empty for names without a match.

    `UserError` if no name matches.
    """
    matches = [re.search(pattern, PurePosixPath(name).name) for name in names]
    if not any(matches):
        raise UserError(
            f"{where}.group: {pattern!r} does not match any of {counted(len(names), 'file name')}, such as "
            f"{PurePosixPath(names.iloc[0]).name!r}. Correct it, or leave it out."
        )
    # "=" distinguishes a match of the empty text from no match.
    return pd.Series(
        ["" if match is None else "=" + "|".join(map(str, match.groups() or [match.group()])) for match in matches],
        names.index,
    )
