"""What users are told of a state: why, which command next, which exit code."""
