"""`./nexusmix bench claims`: what the papers claim of these methods, and this project, measured."""
