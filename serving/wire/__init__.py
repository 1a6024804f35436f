"""What travels between client and server: NumPy arrays as protobuf tensors."""
