"""Models on two replicas: built in a strategy's scope, stepped, and compared with one replica.

In a process of its own, because two logical CPUs can only be made before TensorFlow starts.
"""

import subprocess
import sys

PROGRAM = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from models.config.model import parse_model_config
from models.zoo import build_model
from pipeline.records.encoded import EncodedSpec, IdFeature

spec = EncodedSpec(numeric=("a",), categorical=(IdFeature("x", 9), IdFeature("y", 9)))
rng = np.random.default_rng(0)
numeric = rng.normal(size=(8, 1)).astype(np.float32)
ids = rng.integers(0, 9, (8, 2)).astype(np.int32)
labels = np.array([0, 1, 0, 0, 1, 0, 1, 1], np.float32)

# one strategy each: a second one in a process would reuse the first one's collective keys
ONE = tf.distribute.MirroredStrategy(["CPU:0"])
TWO = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def after_one_step(strategy, norm, weights):
    with strategy.scope():
        raw = {"name": "dcn_v2", "norm": norm, "hidden_units": [6, 4], "embedding_dim": 4}
        model = build_model(parse_model_config(raw), spec)
    if weights:
        model.set_weights(weights)
    weights = model.get_weights()
    share = 8 // strategy.num_replicas_in_sync

    def piece(context, array):
        i = context.replica_id_in_sync_group
        return array[i * share : (i + 1) * share]

    batch = strategy.experimental_distribute_values_from_function(
        lambda c: {"numeric": piece(c, numeric), "ids": piece(c, ids), "label": piece(c, labels)}
    )

    @tf.function
    def gradients(batch):
        def replica(batch):
            with tf.GradientTape() as tape:
                losses = tf.nn.sigmoid_cross_entropy_with_logits(
                    labels=batch["label"], logits=model(batch, training=True)
                )
                loss = tf.reduce_sum(losses) / 8
            grads = tape.gradient(loss, model.trainable_weights)
            model.advance_step()
            context = tf.distribute.get_replica_context()
            return context.all_reduce(
                tf.distribute.ReduceOp.SUM, [tf.convert_to_tensor(g) for g in grads]
            )
        return strategy.run(replica, args=(batch,))

    for variable, gradient in zip(model.trainable_weights, gradients(batch)):
        first = strategy.experimental_local_results(gradient)[0]
        variable.assign(variable.numpy() - 0.5 * first.numpy())
    assert model.step.numpy() == 1, model.step
    everything = {"numeric": tf.constant(numeric), "ids": tf.constant(ids)}
    return model(everything, training=False).numpy(), weights

def gap(norm):
    one, weights = after_one_step(ONE, norm, None)
    two, _ = after_one_step(TWO, norm, weights)
    return float(np.abs(one - two).max())

layer = gap("layer")
synchronized = gap({"kind": "batch", "momentum": 0.0, "synchronized": True})
alone = gap({"kind": "batch", "momentum": 0.0})
print(layer, synchronized, alone)
assert layer <= 1e-5 and synchronized <= 1e-4 and alone > 1e-3
"""


def test_layer_norm_and_synchronized_batch_norm_do_not_depend_on_the_number_of_replicas():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
