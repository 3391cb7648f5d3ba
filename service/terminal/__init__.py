"""What commands print: tables, progress bars, stages.

It may import `service.client` and `service.reports`.
"""
