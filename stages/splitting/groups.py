"""Which images belong together, so that they must not come to two sides."""

import re
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.core.errors import UserError
from stages.splitting.near_duplicates import hash_bits, near_duplicate_sets


def group_ids(table: pd.DataFrame, near_duplicates: bool) -> np.ndarray:
    """The number of the set each image belongs to, (n,) int.

    table: columns sha256, look, and group and named, which may be empty. Images of equal content, of one group or of
    equal names (see `groups_from_names`) are in one set, and with `near_duplicates` those that look alike; so are all
    that hang together over others.
    """
    number = np.arange(len(table))
    links = [_first_of(table["sha256"]), *(_first_of(table[key].where(table[key] != "")) for key in ("group", "named"))]
    if near_duplicates:
        distinct = table["look"].drop_duplicates()
        links.append(
            _first_of(table["look"].map(dict(zip(distinct, near_duplicate_sets(hash_bits(distinct)), strict=True))))
        )
    graph = coo_array(
        (np.ones(len(table) * len(links), bool), (np.tile(number, len(links)), np.concatenate(links))),
        shape=(len(table), len(table)),
    )
    return connected_components(graph, directed=False)[1]


def _first_of(keys: pd.Series) -> np.ndarray:
    """The place of the first row with the same key; of a row without a key its own."""
    places = pd.Series(np.arange(len(keys)), keys.index)
    return places.groupby(keys).transform("first").fillna(places).to_numpy(int)


def groups_from_names(pattern: str, names: pd.Series, where: str) -> pd.Series:
    """What a regular expression finds in each file name (what its parentheses hold, where it has some), or empty.

    `UserError` where it finds nothing in any of them.
    """
    found = [re.search(pattern, PurePosixPath(name).name) for name in names]
    if not any(found):
        raise UserError(
            f"{where}.group: {pattern!r} is found in none of {len(names)} file names, such as "
            f"{PurePosixPath(names.iloc[0]).name!r}; correct it, or leave it out."
        )
    # The mark keeps a group that is named by the empty text apart from no group.
    return pd.Series(
        ["" if match is None else "=" + "|".join(map(str, match.groups() or [match.group()])) for match in found],
        names.index,
    )
