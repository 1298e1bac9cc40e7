"""What makes a step fast: products, compiled row-wise kernels, CUDA graphs. Nothing here knows a cell."""
