"""Rows are a function of what they are made from, and of nothing else."""

import numpy as np
from threadpoolctl import threadpool_limits

from assembler.routing.router_rows import STATES_CENTER, fold_rows, prefix
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest

# Wide enough that NumPy shares out its products among the threads that it has.
HIDDEN, DIRECTIONS, EXPERTS = 768, 32, 3


def test_the_number_of_threads_changes_no_bit(blobs: LocalBlobs) -> None:
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> numpy_tensors.Floats:
        return random.standard_normal(shape, np.float32)

    values = {
        STATES_CENTER: drawn(1, HIDDEN),
        f"{prefix(0)}0.weight": drawn(2 * HIDDEN, HIDDEN + 1),
        f"{prefix(0)}1.weight": drawn(HIDDEN, HIDDEN),
    }
    projection = Manifest(
        config={"training": {"own_weight": 0.05}, "num_hidden_layers": 1},
        tensors={n: numpy_tensors.write(blobs, v, dtype="F32") for n, v in values.items()},
    )
    states_NLRD = drawn(EXPERTS, 1, 1 + DIRECTIONS, HIDDEN)
    rows = []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads, user_api="blas"):
            rows.append(fold_rows(projection, states_NLRD, blobs=blobs).rows[0])
    assert rows[0].tobytes() == rows[1].tobytes()
