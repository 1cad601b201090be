"""Version lineage: which version of which transform produced every row."""
