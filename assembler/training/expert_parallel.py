"""Expert parallelism: each process of a group keeps some routed experts, and tokens travel to them.

Every token's row goes to the process that keeps its expert and comes back as that expert's output,
so an expert computes the rows of the whole group and no process computes for an expert it does not
keep (GShard, arXiv 2006.16668, section 3.2). How many rows go where is known only from the routing:
nothing is padded, no token is dropped.

Letters at the end of a tensor's name: S rows of this process sorted by expert (tokens times experts
per token), N routed experts, P processes of the group, E = N / P experts that each keeps, R rows
that arrive here, D hidden.
"""

from itertools import islice
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import all_to_all_single, wait_tensor

from assembler.network.grouped_mm import computing_dtype
from assembler.network.moe import Experts


class DispatchedExperts(Experts):
    """`Experts` of which only those of this process are here; numbers and names stay.

    Process p of the group keeps the experts from `p E` to `(p + 1) E - 1`. Every process must call
    it as often as the others, with rows or without.
    """

    def __init__(self, experts: Experts, group: ProcessGroup) -> None:
        num_kept = len(experts) // group.size()
        first = group.rank() * num_kept
        super().__init__(dict(islice(experts.items(), first, first + num_kept)))
        self._group = group

    def forward(self, x_SD: Tensor, counts_N: Tensor) -> Tensor:
        """All experts, wherever they are: the first on the first `counts_N[0]` rows, and so on.

        Rows [S, D] go out sorted by expert, hence by process; they arrive [R, D] by sender and, of
        each sender, by expert; they are sorted by expert, computed, and go back the same way.
        """
        sent_PE = counts_N.view(-1, len(self))
        received_PE = torch.empty_like(sent_PE)
        dist.all_to_all_single(received_PE, sent_PE.contiguous(), group=self._group)
        # The one place where the host waits for the routing: sizes of messages are its business.
        sent_P, received_P = torch.stack([sent_PE, received_PE]).sum(2).tolist()
        x_RD = self._exchange(x_SD.to(computing_dtype(x_SD)), sent_P, received_P)
        order_R = _by_expert(received_PE)
        y_RD = super().forward(x_RD.index_select(0, order_R), received_PE.sum(0))
        return self._exchange(y_RD.index_select(0, order_R.argsort()), received_P, sent_P)

    def _exchange(self, rows: Tensor, sent_P: list[int], received_P: list[int]) -> Tensor:
        """All-to-all of uneven parts, which both Gloo and NCCL have; gradients go the other way."""
        arrived = all_to_all_single(rows, received_P, sent_P, self._group)
        return cast(Tensor, wait_tensor(arrived))  # type: ignore[no-untyped-call]  # torch's own


def _by_expert(received_PE: Tensor) -> Tensor:
    """The order [R] that puts rows which came by sender and expert into the order of experts."""
    num_senders, num_kept = received_PE.shape
    experts = torch.arange(num_kept, device=received_PE.device).repeat(num_senders)
    return experts.repeat_interleave(received_PE.flatten()).argsort(stable=True)
