"""Stand-in for the runtime image builder, one of the critical files: only its digest matters to fleet."""

BUILDKIT = False
