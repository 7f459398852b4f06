"""Approximate search whose first results are the same however many are requested.

A wider search finds vectors that a narrow one passes over, so that a single search for the k best would rank other
vectors first for another k, and pages would not fit together. Here the ranking of a query is built in fixed steps: the
first 12 come from the narrowest search, those up to 48 from a wider one, up to 192 from one wider still. What a step
finds only now although it ranks before the end of the steps before is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from mcip.retrieval.ann.exact import Ranked

FIRST: Final = 12
_FACTOR: Final = 4


def search_in_steps(search: Callable[[int], Ranked], k: int, count: int) -> Ranked:
    """The first k of a ranking that does not depend on k.

    Args:
        search: Approximate search for a number of vectors: their products and numbers, ranked.
        k: Vectors to return.
        count: Vectors that there are.

    Returns:
        Products (m,) in descending order and numbers; m is k, or fewer where no more are left to be found.
    """
    depth = FIRST
    scores, numbers = search(min(count, depth))
    while len(numbers) < k and depth < count:
        depth *= _FACTOR
        # A quarter more than needed, in place of those that are left out.
        more_scores, more = search(min(count, depth + depth // 4))
        if len(numbers):
            last, number = scores[-1], numbers[-1]
            behind = (more_scores < last) | ((more_scores == last) & (more > number))
            more_scores, more = more_scores[behind], more[behind]
        scores, numbers = np.concatenate([scores, more_scores])[:depth], np.concatenate([numbers, more])[:depth]
    return scores[:k], numbers[:k]
