"""Seeds: the same place in a run gives the same seed, any other place another one."""

from itertools import product

from utils import derive_seed


def test_every_place_has_a_seed_of_its_own():
    places = [place for length in (1, 2, 3) for place in product((0, 1, 2, 300), repeat=length)]
    seeds = [derive_seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [derive_seed(*place) for place in places]
    assert all(0 <= seed < 2**63 for seed in seeds)
