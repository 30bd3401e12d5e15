"""How checkpoints are measured: one file a task, all with one signature, `Measure` in `evals.common`."""
