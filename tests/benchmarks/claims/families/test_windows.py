"""Windows that change their domain in the middle."""

import torch

from tests.benchmarks.claims.families.windows import GENERAL, Windows


def test_the_first_half_is_of_the_domain_before() -> None:
    names = ("law", "python", GENERAL)
    windows = Windows({name: torch.full((2, 5), at) for at, name in enumerate(names)})
    switched = windows.switched()
    assert switched.after == 2
    assert switched.tokens["law"].tolist() == [[2, 2, 0, 0, 0]] * 2
    assert switched.tokens["python"].tolist() == [[0, 0, 1, 1, 1]] * 2
    assert switched.key != windows.key
