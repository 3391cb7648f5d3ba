"""Assembly of four experts against mergekit-moe, and the export against the disk."""
