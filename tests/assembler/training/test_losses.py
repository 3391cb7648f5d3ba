"""Losses against plain formulas: value, gradient, and what even and collapsed routing cost."""

import math

import pytest
import torch
import torch.nn.functional as F

from assembler.training import losses
from assembler.training.losses import count_routing, domain_loss, load_balance, next_token_loss


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("length", [2, 9])
def test_loss_and_gradients_equal_cross_entropy(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several blocks, chunks and groups of rows, none of them full at the end.
    for size, value in (("BLOCK_TOKENS", 5), ("CHUNK_TOKENS", 2), ("CHUNK_ROWS", 4)):
        monkeypatch.setattr(losses, size, value)
    x_BTD, head_VD = (
        random_tensor(2, length, 8).requires_grad_(),
        random_tensor(11, 8).requires_grad_(),
    )
    tokens_BT = torch.arange(2 * length).view(2, length) % 11
    loss = next_token_loss(x_BTD, head_VD, tokens_BT=tokens_BT)
    plain = F.cross_entropy((x_BTD[:, :-1] @ head_VD.mT).flatten(0, 1), tokens_BT[:, 1:].flatten())
    torch.testing.assert_close(loss, plain)
    ours = torch.autograd.grad(3 * loss, [x_BTD, head_VD])
    for grad, expected in zip(ours, torch.autograd.grad(3 * plain, [x_BTD, head_VD]), strict=True):
        torch.testing.assert_close(grad, expected)


def test_a_head_that_does_not_train_has_no_gradient() -> None:
    x_BTD, head_VD = random_tensor(1, 4, 8).requires_grad_(), random_tensor(11, 8)
    next_token_loss(x_BTD, head_VD, tokens_BT=torch.tensor([[1, 2, 3, 4]])).backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert x_BTD.grad is not None
    assert not x_BTD.grad[:, -1].any()
    assert head_VD.grad is None


@pytest.mark.parametrize("num_blocks", [1, 2, 30])
def test_a_block_adds_1_for_even_routing_and_n_for_one_expert(num_blocks: int) -> None:
    even_LTN = torch.eye(4).expand(num_blocks, 4, 4)
    assert load_balance(even_LTN).item() == pytest.approx(num_blocks)
    collapsed_LTN = torch.eye(4)[:1].expand(num_blocks, 4, 4)
    assert load_balance(collapsed_LTN).item() == pytest.approx(4 * num_blocks)


def test_z_loss_is_the_mean_square_of_log_sums_over_tokens_added_up_over_blocks() -> None:
    logits_LTN = random_tensor(2, 3, 4)
    sums = [math.log(sum(map(math.exp, row))) for row in logits_LTN.view(6, 4).tolist()]
    expected = sum(z**2 for z in sums) / 3
    assert losses.z_loss(logits_LTN).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("q", "loss_of_half"), [(1.0, 0.5), (0.5, 2 * (1 - math.sqrt(0.5))), (0.0, math.log(2))]
)
def test_domain_loss_ranges_from_cross_entropy_to_lost_share(q: float, loss_of_half: float) -> None:
    labels_T, weights_T = torch.tensor([0, 1]), torch.ones(2)
    routing_LTN = torch.tensor([[[0.0, 0.0], [-torch.inf, 0.0]]])
    loss = domain_loss(routing_LTN, labels_T, weights_T=weights_T, q=q)
    assert loss.item() == pytest.approx(loss_of_half / 2)


def test_an_expert_whose_probability_underflows_still_learns() -> None:
    routing_LTN = torch.tensor([[[200.0, 0.0]]], requires_grad=True)
    loss = domain_loss(routing_LTN, torch.tensor([1]), weights_T=torch.ones(1), q=0.0)
    (gradient,) = torch.autograd.grad(loss, routing_LTN)
    assert loss.item() == pytest.approx(200)
    assert gradient.tolist() == [[[1, -1]]]


def test_routing_is_counted_by_domain_and_first_choice() -> None:
    routing_LTN = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[2.0, 1.0], [1.0, 0.0]]])
    counts_NN = count_routing(routing_LTN, torch.tensor([0, 1]))
    assert counts_NN.tolist() == [[2, 0], [1, 1]]
    assert count_routing(torch.zeros(0, 2, 0), torch.tensor([0, 1])).numel() == 0
