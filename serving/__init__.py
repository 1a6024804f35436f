"""What leaves. Knows TF Serving's contract."""
