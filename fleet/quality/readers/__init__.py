"""One reader per layout and file: tolerant, never guessing. What cannot be read is a problem, not an exception."""
