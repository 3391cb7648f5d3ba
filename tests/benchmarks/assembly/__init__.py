"""Compare the assembly of four experts with mergekit-moe, and the export with the disk."""
