"""A model and a norm beside the house's own: `python -m pytest -p tests.contracts.additions.added`.

Importing it makes their folders parts of models.zoo, models.norms and models.layers, as if they lay
there.
"""

from pathlib import Path

import models.layers
import models.norms
import models.zoo

HERE = Path(__file__).parent
models.layers.__path__.append(str(HERE / "layers"))
models.zoo.__path__.append(str(HERE / "zoo"))
models.norms.__path__.append(str(HERE / "norms"))
