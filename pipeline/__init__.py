"""How clicks become tensors. Knows Beam, Arrow and TensorFlow; knows no Keras model."""

import os

from pipeline import quiet

# TensorFlow reads this when it is first imported, here or in a worker process of Beam's. Keras 2 it is
# (models.keras2 says why and asserts it); Keras 3 would also load scikit-learn and matplotlib, 2 s a worker.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
quiet.install()
