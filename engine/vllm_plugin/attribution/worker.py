"""vLLM's worker on a CPU, whose steps switch experts off and read the weights of the others.

`_model_forward` is what vLLM's runner offers to subclasses. Each step's rows leave with its tokens.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.experts import mix_of
from engine.vllm_plugin.attribution.rows import RequestRows, Rows
from engine.vllm_plugin.attribution.steering import Steering


@dataclass(frozen=True)
class _Step:
    """One step: its requests, where the tokens of each begin, and the rows of all tokens.

    `starts` are places in the batch, one more than requests; `positions` are places in the texts.
    """

    requests: list[RequestRows]
    starts: list[int]
    positions: list[int]
    mean_TM: Rows
    blocks_TLM: Rows | None

    def rows(self, number: int, *, has_written: bool) -> Rows | None:
        """Return the rows to send for a request."""
        request = self.requests[number]
        rows = self.blocks_TLM if request.asked.blocks else self.mean_TM
        assert rows is not None
        own = rows[self.starts[number] : self.starts[number + 1]]
        return request.after_step(own, position=self.positions[number], has_written=has_written)


class AttributingRunner(CPUModelRunner):
    """vLLM's runner, with `Steering` on the network of a mix."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the network."""
        super().load_model(*args, **kwargs)
        self.steering: Steering | None = None
        self.rows_by_request: dict[str, RequestRows] = {}
        self.step: _Step | None = None
        config = self.vllm_config
        if (mix := mix_of(config.model_config.hf_config)) is not None:
            if config.speculative_config is not None:
                raise ValueError("a mix is not served with speculation: its steps write one token")
            max_tokens = config.scheduler_config.max_num_batched_tokens
            self.steering = Steering(self.get_model(), mix, max_tokens=max_tokens)

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a step; what is known of finished requests is forgotten."""
        for request_id in scheduler_output.finished_req_ids:
            self.rows_by_request.pop(request_id, None)
        return super().execute_model(scheduler_output, *args, **kwargs)

    def _model_forward(self, *args: Any, **kwargs: Any) -> Any:
        batch = self.input_batch
        if self.steering is None or not batch.num_reqs:
            return super()._model_forward(*args, **kwargs)
        # Lists: preparing the next step writes into the same arrays.
        starts = self.query_start_loc.np[: batch.num_reqs + 1].tolist()
        positions = batch.num_computed_tokens_cpu[: batch.num_reqs].tolist()
        requests = [self._request(request_id) for request_id in batch.req_ids]
        lengths = [end - start for start, end in pairwise(starts)]
        self.steering.mask([request.asked.disabled for request in requests], lengths)
        output = super()._model_forward(*args, **kwargs)
        weights_LTM = self.steering.weights(starts[-1])
        blocks_TLM = None
        if any(request.asked.blocks for request in requests):
            blocks_TLM = weights_LTM.transpose(0, 1).numpy()
        self.step = _Step(requests, starts, positions, weights_LTM.mean(0).numpy(), blocks_TLM)
        return output

    def _request(self, request_id: str) -> RequestRows:
        request = self.rows_by_request.get(request_id)
        if request is None:
            params = self.requests[request_id].sampling_params
            asked = Asked.of(params.extra_args if params else None)
            request = self.rows_by_request[request_id] = RequestRows(asked)
        return request

    def sample_tokens(  # type: ignore[override]  # wrapped there in an object of torch
        self, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the tokens of the step, with the rows to send in the field of routed experts."""
        output = super().sample_tokens(*args, **kwargs)
        step, self.step = self.step, None
        if step is not None and isinstance(output, ModelRunnerOutput):
            sent = {
                request_id: step.rows(number, has_written=bool(output.sampled_token_ids[number]))
                for number, request_id in enumerate(output.req_ids)
            }
            # `AttributingScheduler` reads them, in the place of vLLM's own connector.
            output.aux_output_connector_output = sent  # type: ignore[assignment]
        return output


class AttributingWorker(CPUWorker):
    """vLLM's worker, with the runner above."""

    def init_device(self) -> None:
        """Make the runner. Raises ValueError for vLLM's second runner, which has other hooks."""
        super().init_device()  # type: ignore[no-untyped-call]
        if type(self.model_runner) is not CPUModelRunner:
            raise ValueError(
                "experts are counted in vLLM's first model runner only: unset"
                " VLLM_USE_V2_MODEL_RUNNER"
            )
        self.model_runner.__class__ = AttributingRunner
