"""Break every part of a running service at random while it works, and audit what is left.

Actors upload, mix, extend, deploy, chat and follow events on tiny models. Meanwhile web, worker,
agent, engine, PostgreSQL and the S3 server are killed and frozen, the disk is filled, and
connections are cut. At the end a ledger compares what was acknowledged with what is there. Imports
the service's client, `tests.benchmarks.harness` and helpers of tests.
"""
