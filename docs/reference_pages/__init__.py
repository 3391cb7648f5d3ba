"""The reference pages, generated from the code: command line, REST API, settings, recipe, metrics.

`docs/hooks.py` adds them to the build. The package reads the code of nexusmix and writes Markdown
text; it knows nothing of mkdocs.
"""
