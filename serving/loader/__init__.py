"""TF Serving's own loading path, from Python and as a small C++ program."""
