"""What adapters, bases, sets and targets are, and how PEFT reads them. Nothing here opens a file."""
