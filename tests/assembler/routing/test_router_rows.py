"""Router rows depend on nothing but their inputs."""

import numpy as np
from threadpoolctl import threadpool_limits

from assembler.routing.router_rows import STATES_CENTER, SWISH_IS_ONE, Learned, fold_rows
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.manifests import Manifest

# Wide enough that NumPy's BLAS divides its products among its threads.
HIDDEN, DIRECTIONS, EXPERTS = 768, 32, 3
W1, W2 = (tensor_names.projection(0, number) for number in (0, 1))


def random_array(*shape: int) -> numpy_tensors.Floats:
    random = np.random.default_rng(shape)
    return random.standard_normal(shape, np.float32)


def projection_of(blobs: LocalBlobs) -> Manifest:
    """Store a random linear projection of one block, as that of a family is."""
    w1 = random_array(2 * HIDDEN, HIDDEN + 1)
    w1[:HIDDEN], w1[:, -1] = 0, 0
    w1[:HIDDEN, -1] = SWISH_IS_ONE
    values = {
        STATES_CENTER: random_array(1, HIDDEN),
        W1: w1,
        W2: random_array(HIDDEN, HIDDEN),
    }
    return Manifest(
        config={"training": {"own_weight": 0.05}, "num_hidden_layers": 1},
        tensors={n: numpy_tensors.write(blobs, v, dtype="F32") for n, v in values.items()},
    )


STATES_NLRD = random_array(EXPERTS, 1, 1 + DIRECTIONS, HIDDEN)


def test_the_number_of_threads_changes_no_bit(blobs: LocalBlobs) -> None:
    projection, rows = projection_of(blobs), []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads, user_api="blas"):
            rows.append(fold_rows(projection, STATES_NLRD, blobs=blobs).rows[0])
    assert rows[0].tobytes() == rows[1].tobytes()


def test_embeddings_have_length_1_under_the_weights_that_project_them(blobs: LocalBlobs) -> None:
    projection = projection_of(blobs)
    moved = numpy_tensors.read(blobs, projection.tensors[W1])
    moved[HIDDEN:] = 3 * moved[HIDDEN:] + random_array(HIDDEN, HIDDEN + 1)
    learned = {
        W1: numpy_tensors.write(blobs, moved, dtype="F32"),
        W2: projection.tensors[W2],
    }
    folded = fold_rows(
        projection,
        STATES_NLRD,
        blobs=blobs,
        learned=Learned(projection=learned, rows={}, places=[None] * EXPERTS),
    )
    b_ND = folded.domain_embeddings[0, :, :-1] @ moved[HIDDEN:, :-1].T
    np.testing.assert_allclose(np.linalg.norm(b_ND, axis=-1), 1, rtol=1e-4)


def test_a_scale_makes_rows_longer_and_turns_none(blobs: LocalBlobs) -> None:
    projection = projection_of(blobs)
    rows, twice = (
        fold_rows(projection, STATES_NLRD, blobs=blobs, scale=scale).rows[0] for scale in (1.0, 2.0)
    )
    np.testing.assert_allclose(twice, 2 * rows, rtol=1e-4, atol=1e-5)
