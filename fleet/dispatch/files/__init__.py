"""A batch on disk: its directory, its journal, who writes it, and what is already collected."""
