"""`./nexusmix bench pages`: fill the tables of the results pages from the committed results.

One module for each page returns its tables by name; `pages` says which module fills which page.
Claims and divergence have packages of their own, because their benchmarks also draw plots.
"""
