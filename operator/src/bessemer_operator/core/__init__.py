"""Decisions, and nothing else: no kopf, no client, no clock, no environment, no logging, no async."""
