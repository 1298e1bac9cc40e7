"""Linear cells over time: one pass over memory; `run` is the backend."""
