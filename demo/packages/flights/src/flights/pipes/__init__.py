"""Pipe declarations, one module a layer; importing a module registers its pipes."""
