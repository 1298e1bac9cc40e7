"""Row-wise functions of torch, compiled: to C++, or by the compiler of `torch.compile`."""
