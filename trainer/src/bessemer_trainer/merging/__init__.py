"""Merging checkpoints: the checks before and after, what is measured, and mergekit behind one file.

`engine`, `probe` and `barrier` run in a process of their own and import torch; nothing else here does.
"""
