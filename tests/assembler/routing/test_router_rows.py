"""Router rows depend on nothing but their inputs."""

import numpy as np
from threadpoolctl import threadpool_limits

from assembler.routing.router_rows import STATES_CENTER, fold_rows
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.manifests import Manifest

# Wide enough that NumPy's BLAS divides its products among its threads.
HIDDEN, DIRECTIONS, EXPERTS = 768, 32, 3


def test_the_number_of_threads_changes_no_bit(blobs: LocalBlobs) -> None:
    random = np.random.default_rng(0)

    def random_array(*shape: int) -> numpy_tensors.Floats:
        return random.standard_normal(shape, np.float32)

    values = {
        STATES_CENTER: random_array(1, HIDDEN),
        tensor_names.projection(0, 0): random_array(2 * HIDDEN, HIDDEN + 1),
        tensor_names.projection(0, 1): random_array(HIDDEN, HIDDEN),
    }
    projection = Manifest(
        config={"training": {"own_weight": 0.05}, "num_hidden_layers": 1},
        tensors={n: numpy_tensors.write(blobs, v, dtype="F32") for n, v in values.items()},
    )
    states_NLRD = random_array(EXPERTS, 1, 1 + DIRECTIONS, HIDDEN)
    rows = []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads, user_api="blas"):
            rows.append(fold_rows(projection, states_NLRD, blobs=blobs).rows[0])
    assert rows[0].tobytes() == rows[1].tobytes()
