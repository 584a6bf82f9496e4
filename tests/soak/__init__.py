"""A whole fleet on loopback under random faults for minutes: `make soak`, and a small one in the tests."""
