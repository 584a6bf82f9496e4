"""What is to be done next, as pure functions of the state: no clock, no file, no host."""
