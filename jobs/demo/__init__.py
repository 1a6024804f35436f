"""The whole product on a synthetic log, and its report."""
