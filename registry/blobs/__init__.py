"""Bytes named by their SHA-256: a local folder, an S3 bucket, an overlay, and direct disk reads.

It may import the modules of `registry`, but no sub-package.
"""
