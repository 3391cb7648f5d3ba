"""`./nexusmix bench claims`: measure what the papers and this project claim about these methods."""
