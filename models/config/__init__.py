"""What can be chosen about a model and its training. Plain data: no TensorFlow is imported here."""
