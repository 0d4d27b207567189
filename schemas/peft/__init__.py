"""What every PEFT release knows: its config fields, and the index of releases."""
