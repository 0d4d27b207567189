"""Settings: which there are, the files that hold them, where each value comes from."""
