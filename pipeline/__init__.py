"""How clicks become tensors. Knows Beam, Arrow and TensorFlow; knows no Keras model."""
