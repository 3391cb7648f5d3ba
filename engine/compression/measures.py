"""How much text a compression search compares on, and the measures it reports. Free of torch."""

from pydantic import ConfigDict, Field

from engine.gates.report import Data


class ProbeSize(Data):
    """The amount of held-out text that a search compares on."""

    model_config = ConfigDict(allow_inf_nan=False)

    prompts: int = Field(default=16, ge=4, le=100_000, description="Held-out prefixes.")
    prefix_tokens: int = Field(default=32, ge=1, le=2**24, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=32,
        ge=1,
        le=2**24,
        description="Tokens the checkpoint itself adds greedily to each prefix.",
    )

    def check_fdt(self, min_fdt_75: float | None) -> None:
        """Raise ValueError when `min_fdt_75` exceeds the number of compared tokens."""
        if min_fdt_75 is not None and min_fdt_75 > self.completion_tokens:
            raise ValueError(
                f"min_fdt_75 is {min_fdt_75}, but only {self.completion_tokens} tokens are"
                " compared; raise completion_tokens or lower min_fdt_75"
            )


class Measures(Data):
    """The divergence of a changed checkpoint from the original.

    FDT counts tokens; DPPL and the perplexity of held-out text are per token.
    """

    fdt_75: float = Field(description="75th percentile of the first divergent token.")
    fdt_mean: float = Field(description="Mean of the first divergent token.")
    fdt_mean_interval: tuple[float, float] | None = Field(
        default=None, description="95 % confidence interval, by resampling prefixes."
    )
    dppl: float = Field(description="Perplexity on the original's greedy texts.")
    perplexity: float = Field(description="Perplexity of held-out text.")
