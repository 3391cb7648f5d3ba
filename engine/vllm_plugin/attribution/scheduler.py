"""vLLM's scheduler, which hands on the rows of the worker with the tokens of each request."""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from engine.vllm_plugin.attribution.rows import Rows


class RowsConnector:
    """Takes the place of vLLM's connector for numbers of routed experts, which needs a card."""

    def build_connector_meta(self, scheduler_output: Any, requests: Any) -> None:
        """Send the worker nothing: it knows its requests."""

    def take_output(self, request: Any, output: dict[str, Rows] | None) -> Rows | None:
        """Return the rows of a request."""
        return (output or {}).get(request.request_id)

    def request_finished(self, request: Any) -> None:
        """Keep nothing of a request."""

    def reset(self) -> None:
        """Keep nothing of the prefix cache."""


class AttributingScheduler(Scheduler):
    """vLLM's scheduler for steps that are not planned ahead, as on a CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aux_output_connector = RowsConnector()  # type: ignore[assignment]  # the same methods
