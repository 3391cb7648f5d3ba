"""The registry stores families, experts, checkpoints, tensors, documents and projections.

Sub-packages in order. Each may import the ones above it; nothing here imports another package of
this repository:

1. modules of this folder: errors, names, texts, bounded JSON, settings, licenses, logs,
   processor features
2. `bases`, `database` and `blobs`: supported base models, rows in PostgreSQL, bytes named by their
   digest
3. `checkpoints`: parts of a checkpoint, its formats on disk, and the checks before it is stored
4. `catalog`: families, experts, projections, documents, uploads, artifacts
"""
