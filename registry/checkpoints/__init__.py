"""Parts of a checkpoint: architecture, names of tensors, manifest, formats on disk, signature.

It may import `registry.bases`, `registry.blobs` and the modules of `registry`. It knows no database
and no torch.
"""
