"""Bodies of requests and answers below /api/v1, one module for each resource.

The service checks requests with them, the client reads answers with them, and the OpenAPI document
is generated from them. They import nothing of `service`.
"""
