"""Lightning callbacks that `rnnzoo fit` uses; each works in any other Trainer too."""
