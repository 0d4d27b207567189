"""Rules about an adapter and its base."""
