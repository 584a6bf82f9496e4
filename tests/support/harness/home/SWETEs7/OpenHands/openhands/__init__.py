"""Stand-in for the package of the eval system."""
