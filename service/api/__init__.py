"""The REST routes below /api/v1, one module for each resource.

Each route reads its request, calls a function of `assembler`, `engine` or `registry`, and returns
a schema. It may import `service.web` and `service.reports`, not `service.ui`.
"""
