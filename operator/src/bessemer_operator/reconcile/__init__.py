"""The shell around core: events in, observe, decide, apply, status, events out. It decides nothing about the domain."""
