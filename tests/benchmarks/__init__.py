"""Measurements against other tools, run by `./nexusmix bench NAME`.

A benchmark is a module with `main(argv) -> int`; it takes `--quick`, which does little but all of
it, and `--output`. What it found is written to `results/NAME.json` and committed.
"""
