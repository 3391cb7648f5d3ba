"""Expert parallelism: each process keeps some routed experts, and tokens are sent to them.

Every token's row goes to the process that keeps its expert and returns as that expert's output. An
expert therefore computes the rows of the whole group, and a process computes only for the experts
that it keeps (GShard, arXiv 2006.16668, section 3.2). The number of rows depends on the routing
alone: nothing is padded, and no token is dropped.

Letters at the end of a tensor's name: S rows of this process sorted by expert (tokens times experts
per token), N routed experts, P processes of the group, E = N / P experts that each keeps, R rows
received, D hidden.
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
    """`Experts` that hold only this process's experts, under unchanged numbers and names.

    Process p of the group keeps the experts from `p E` to `(p + 1) E - 1`. Every process must call
    this module equally often, with rows or without.
    """

    def __init__(self, experts: Experts, group: ProcessGroup) -> None:
        num_kept = len(experts) // group.size()
        first = group.rank() * num_kept
        super().__init__(dict(islice(experts.items(), first, first + num_kept)))
        self._group = group

    def forward(self, x_SD: Tensor, counts_N: Tensor) -> Tensor:
        """Apply each expert, wherever it is kept, to its rows of [S, D]; return outputs [S, D].

        The first expert has the first `counts_N[0]` rows, and so on. Rows are sent sorted by
        expert, hence by process. They arrive as [R, D] ordered by sender, then by expert. They are
        sorted by expert, computed, and sent back the same way.
        """
        sent_PE = counts_N.view(-1, len(self))
        received_PE = torch.empty_like(sent_PE)
        dist.all_to_all_single(received_PE, sent_PE.contiguous(), group=self._group)
        # The host waits for the GPU only here, because it needs the message sizes.
        sent_P, received_P = torch.stack([sent_PE, received_PE]).sum(2).tolist()
        x_RD = self._exchange(x_SD.to(computing_dtype(x_SD)), sent_P, received_P)
        order_R = _by_expert(received_PE)
        y_RD = super().forward(x_RD.index_select(0, order_R), received_PE.sum(0))
        return self._exchange(y_RD.index_select(0, order_R.argsort()), received_P, sent_P)

    def _exchange(self, rows: Tensor, sent_P: list[int], received_P: list[int]) -> Tensor:
        """Exchange uneven parts by all-to-all; gradients flow back the same way."""
        received = all_to_all_single(rows, received_P, sent_P, self._group)
        return cast(Tensor, wait_tensor(received))  # type: ignore[no-untyped-call]  # untyped in torch


def _by_expert(received_PE: Tensor) -> Tensor:
    """Return the order [R] that sorts rows by expert, given by sender and expert."""
    num_senders, num_kept = received_PE.shape
    experts = torch.arange(num_kept, device=received_PE.device).repeat(num_senders)
    return experts.repeat_interleave(received_PE.flatten()).argsort(stable=True)
