"""Data stages: what goes in, what is kept, what training reads."""
