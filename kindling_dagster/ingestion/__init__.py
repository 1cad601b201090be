"""File ingestion: landed files into their entities, each exactly once."""
