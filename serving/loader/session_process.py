"""Scores requests with an exported model the way TF Serving does, in a process of its own.

Run as a script in an isolated interpreter: it imports TensorFlow and NumPy and nothing of this project,
so an export that leans on the project's Python fails here as it would in production.

    python -I session_process.py EXPORT_DIR REQUESTS.pickle ANSWERS.pickle

REQUESTS: a list of (signature name, {input: array}); ANSWERS: a list of {output: array}.
"""

from __future__ import annotations

import pickle
import sys

import tensorflow as tf


def main(export_dir: str, requests_path: str, answers_path: str) -> None:
    """Loads once through the loader that TF Serving uses, then runs every request in the session."""
    with open(requests_path, "rb") as stream:
        requests = pickle.load(stream)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], export_dir)
        answers = []
        for name, inputs in requests:
            signature = graph.signature_def[name]
            feed = {signature.inputs[key].name: value for key, value in inputs.items()}
            fetch = {key: info.name for key, info in signature.outputs.items()}
            answers.append(session.run(fetch, feed))
    with open(answers_path, "wb") as stream:
        pickle.dump(answers, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
