"""Seeds for random numbers.

Every piece of work that draws random numbers gets a seed made from the run's seed and its place in
the run. So a resumed run repeats exactly what the interrupted one would have done, and nothing
about random generators has to be saved.
"""

import numpy as np


def derive_seed(*place: int) -> int:
    """A 63-bit seed that is a fixed function of `place`, non-negative integers."""
    # The length, because SeedSequence takes (1,) and (1, 0) for the same.
    high, low = np.random.SeedSequence((len(place), *place)).generate_state(2).tolist()
    return (high << 32 | low) >> 1
