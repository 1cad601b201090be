"""Column lineage: which columns of its inputs each column that a pipe writes is made of."""
