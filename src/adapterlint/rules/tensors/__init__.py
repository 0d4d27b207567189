"""Rules about tensors."""
