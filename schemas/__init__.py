"""JSON schemas and tables that ship with adapterlint."""
