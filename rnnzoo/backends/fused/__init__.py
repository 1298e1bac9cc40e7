"""Any staged cell over time: one product and one row-wise kernel a step; `run` is the backend."""
