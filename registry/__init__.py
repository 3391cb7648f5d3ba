"""What is kept: families, experts, checkpoints, their tensors, documents and projections.

Sub-packages in order. Each may import the ones above it; nothing here imports another package of
this repository:

1. modules of this folder: errors, names, settings, licenses, logs, processor features
2. `database` and `blobs`: rows in PostgreSQL, bytes named by their digest
3. `checkpoints`: what a checkpoint consists of, its formats on disk, and what it must satisfy
4. `catalog`: families, experts, projections, documents, uploads, artifacts
"""
