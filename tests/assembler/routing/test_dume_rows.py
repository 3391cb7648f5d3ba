"""Rows of DUME equal a plain ridge regression on the router inputs of all experts."""

import numpy as np
import torch
import torch.nn.functional as F

from assembler.routing import dume_rows
from assembler.routing.embedder import DOMAIN_TOKENS
from assembler.routing.router_inputs import RouterInputs
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import tiny_mixes

EXPERTS = (1, 2, 3)
LAYER = 1


def test_rows_are_those_of_a_plain_regression(blobs: LocalBlobs) -> None:
    experts = [tiny.store_manifest(blobs, expert=number) for number in EXPERTS]
    domains = tiny_mixes.expert_documents(EXPERTS)
    inputs = [
        torch.cat(
            [
                states[LAYER]
                for states in RouterInputs(expert, blobs).batches(own, num_tokens=DOMAIN_TOKENS)
            ]
        )
        for expert, own in zip(experts, domains, strict=True)
    ]
    # Ridge regression is least squares with the root of lambda below the inputs.
    width = inputs[0].shape[1]
    x_TD = torch.cat([*inputs, dume_rows.RIDGE**0.5 * torch.eye(width)]).double()
    labels_T = torch.cat([torch.full((len(own),), n) for n, own in enumerate(inputs)])
    y_TN = F.pad(F.one_hot(labels_T).double(), (0, 0, 0, width))
    expected_ND = F.normalize(torch.linalg.lstsq(x_TD, y_TN).solution.mT, dim=-1)
    rows_ND = dume_rows.rows(experts, domains, blobs=blobs)[LAYER]
    np.testing.assert_allclose(rows_ND, expected_ND.numpy(), rtol=1e-2, atol=1e-3)


def test_rows_send_router_inputs_to_their_own_expert(blobs: LocalBlobs) -> None:
    experts = [tiny.store_manifest(blobs, expert=number) for number in EXPERTS]
    domains = tiny_mixes.expert_documents(EXPERTS)
    made = dume_rows.rows(experts, domains, blobs=blobs)
    for number, (expert, own) in enumerate(zip(experts, domains, strict=True)):
        for states in RouterInputs(expert, blobs).batches(own, num_tokens=DOMAIN_TOKENS):
            for rows_ND, states_TD in zip(made, states, strict=True):
                chosen_T = (states_TD @ torch.from_numpy(rows_ND).mT).argmax(-1)
                assert (chosen_T == number).float().mean() > 0.7
