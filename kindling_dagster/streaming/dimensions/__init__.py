"""Changes of dimension tables, seen without Spark: `look` compares a table with a fingerprint of it."""
