"""Stand-in: readiness asks whether this package can be imported."""
