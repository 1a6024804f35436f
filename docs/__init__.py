"""The documentation's own code: the pages that are generated, the picture, and the hooks of the build."""
