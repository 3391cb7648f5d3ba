"""Gate reports, comparisons, verification and cards of models, for pages, terminals and programs.

Functions from measured reports to tables and HTML, and from deployments to cards of models. It may
import the modules of `service`, but no other sub-package.
"""
