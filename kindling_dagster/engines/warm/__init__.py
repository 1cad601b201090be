"""The warm engine: a local process that keeps Spark and the app up between runs."""
