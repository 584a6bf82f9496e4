"""Real test hosts, a stand-in eval harness and other helpers shared by the tests."""
