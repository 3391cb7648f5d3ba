"""Keeps an installation whole and small: checks, removals, backups.

It may import `service.home`, `service.keys` and `service.tables`, but no other sub-package.
"""
