"""The API process's side of vLLM: requests get what they ask of experts, rows are counted.

Every request passes here, by whatever route it came. So a mask comes from the field `nexus` only,
and never shares the prefix cache with other masks.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter
from vllm.v1.engine.output_processor import OutputProcessor

from engine.vllm_plugin.attribution import collecting
from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.collecting import Collector, Kind
from engine.vllm_plugin.attribution.experts import Experts

TOKENS = Counter(
    "nexusmix:expert_tokens",
    "Tokens that were computed, by what each expert weighed in them, averaged over blocks.",
    ["model_name", "expert", "kind"],
)


class AttributingProcessor(OutputProcessor):
    """vLLM's output processor, for requests that ask about experts."""

    # Set before the first request comes. None for a model that is no mix.
    experts: Experts | None = None
    model_name = ""

    def add_request(
        self,
        request: Any,
        prompt: str | None,
        parent_req: Any = None,
        request_index: int = 0,
        queue: Any = None,
    ) -> None:
        """Register a request before the engine gets it."""
        collector = collecting.current.get()
        if request.sampling_params is not None:
            _ask(request, collector.asked if collector else Asked())
        super().add_request(request, prompt, parent_req, request_index, queue)
        if collector is not None:
            state: Any = self.request_states[request.request_id]
            num_choices = parent_req.sampling_params.n if parent_req else 1
            number = _number_of_prompt(state.external_req_id) * num_choices + request_index
            state.collector, state.choice = collector, number

    def process_outputs(self, engine_core_outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Count and keep the rows of a step, before its tokens become text."""
        sums: dict[Kind, list[NDArray[Any]]] = {"prompt": [], "completion": []}
        for output in engine_core_outputs:
            if output.routed_experts is not None:
                for kind, sum_M in self._collect(output):
                    sums[kind].append(sum_M)
                # vLLM would keep all of them until the request ends.
                output.routed_experts = None
        for kind, summands in sums.items():
            if summands and self.experts is not None:
                counts = np.sum(summands, axis=0).tolist()
                for name, count in zip(self.experts.names, counts, strict=True):
                    TOKENS.labels(self.model_name, name, kind).inc(max(count, 0.0))
        return super().process_outputs(engine_core_outputs, *args, **kwargs)

    def _collect(self, output: Any) -> list[tuple[Kind, NDArray[Any]]]:
        """Give rows to the collector of their request; return their sums [M] by kind."""
        state: Any = self.request_states.get(output.request_id)
        collector: Collector | None = getattr(state, "collector", None)
        rows = output.routed_experts
        head = len(rows) - len(output.new_token_ids)
        mean = rows if rows.ndim == 2 else rows.mean(1)
        sums: list[tuple[Kind, NDArray[Any]]] = [("completion", mean[head:].sum(0))]
        if head:
            sums.append(("prompt", mean[:head].sum(0)))
        if collector is not None:
            collector.add(state.choice, prompt=rows[:head], written=rows[head:])
            for kind, sum_M in sums:
                collector.count(kind, sum_M)
        return sums


def _ask(request: Any, asked: Asked) -> None:
    """Put what a request asks where the worker finds it, and its cache apart from other masks."""
    params = request.sampling_params
    params.extra_args = asked.replace_in(params.extra_args)
    if asked.disabled:
        # Keys and values of a token depend on the experts of the blocks before.
        salt = f"{asked.disabled} {request.cache_salt or ''}"
        request.cache_salt = "nexus-" + hashlib.sha256(salt.encode()).hexdigest()
    if asked.prompt:
        # What comes from the cache is computed by no expert.
        params.skip_reading_prefix_cache = True


def _number_of_prompt(request_id: str) -> int:
    """Return the number of a prompt among those of one completion; a chat has one prompt."""
    head, _, number = request_id.rpartition("-")
    return int(number) if head.startswith("cmpl-") and number.isdigit() else 0
