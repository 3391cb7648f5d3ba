"""What HTTP routes share: middleware, authentication, dependencies, idempotency, request bodies.

It may import the modules of `service`, but no sub-package.
"""
