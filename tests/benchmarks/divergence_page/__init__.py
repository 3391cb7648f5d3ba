"""`./nexusmix bench divergence-page`: DIVERGENCE.md, made anew from the results of benchmarks."""
