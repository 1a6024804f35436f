"""TF Serving's own loading path: in this process, in one without the project's Python, as a C++ program."""
