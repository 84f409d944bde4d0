"""A lower confidence bound on a share, from how often it was seen."""

from __future__ import annotations

from functools import lru_cache
from math import exp, lgamma, log, log1p

import numpy as np

_MOST_STEPS = 50
_PRECISION = 1e-9
# exp of more overflows.
_LARGEST_EXPONENT = 700.0


@lru_cache(maxsize=4096)
def lower_bound(successes: int, trials: int, risk: float) -> float:
    """A share that the true one falls below with a probability of at most `risk`.

    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the
    binomial, Biometrika 1934: the share at which so many successes or more have a probability of
    `risk`. Exact for independent trials, without a normal approximation.

    Found by Newton's method on the logarithm of that probability, a beta distribution function,
    which is concave in the share: no step leads above the root, so that stopping early is safe.

    Args:
        successes: 0 to `trials`.
        trials: at least 0.
        risk: between 0 and 1.
    """
    if successes == 0:
        return 0.0
    failures = np.arange(trials - successes + 1)
    ways = lgamma(trials + 1) - np.array(
        [lgamma(n + 1) + lgamma(trials - n + 1) for n in failures.tolist()]
    )
    # The derivative of the probability: (x / p) times that of exactly x successes.
    ways_exactly = float(ways[-1]) + log(successes)
    log_risk = log(risk)
    share = successes / (trials + 1)
    for _ in range(_MOST_STEPS):
        odds = log1p(-share) - log(share)
        logs = ways + failures * odds
        largest = float(logs.max())
        log_tail = largest + log(float(np.exp(logs - largest).sum())) + trials * log(share)
        log_slope = ways_exactly + (trials - successes) * odds + (trials - 1) * log(share)
        step = (log_tail - log_risk) * exp(min(log_tail - log_slope, _LARGEST_EXPONENT))
        # A step beyond 0 says only that the root is far below.
        step = min(step, share / 2)
        share -= step
        if abs(step) < _PRECISION / 10:
            break
    return max(share - _PRECISION, 0.0)
