"""int8 unit by unit: what a search costs, and what it finds."""
