"""What happens inside a model: gradients through time, gradients by step, the values of gates."""
