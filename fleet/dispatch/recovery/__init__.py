"""A lost journal written anew: hosts and results are heard (evidence, salvage), weighed (casebook) and written (rebuild)."""
