"""Runs preprocessing jobs in processes that may be killed: SCHEMA INPUT OUT CONFIG [BEAM OPTION ...].

Imports are done once; each line on stdin starts a job in a forked process, whose id is printed, and
once it has ended its exit status.
"""

import os
import sys

import tensorflow  # noqa: F401  (imported before the fork, used after it)
import yaml

import pipeline.transform.feature_transform  # noqa: F401
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.schema import FeatureSchema

if __name__ == "__main__":
    schema, log, out, config, *beam_options = sys.argv[1:]
    with open(config) as stream:
        options = PreprocessConfig.model_validate(yaml.safe_load(stream))
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            preprocess(FeatureSchema.load(schema), [log], out, options, beam_options=beam_options)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
