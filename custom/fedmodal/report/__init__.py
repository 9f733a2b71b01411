"""Tables of what a run reached."""
