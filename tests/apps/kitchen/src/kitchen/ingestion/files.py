"""Files of the regions."""

from kindling.file_ingestion import FileIngestionEntries

FileIngestionEntries.entry(
    entry_id="region_files",
    name="Files by region",
    patterns=[r"orders_(?P<region>\w+)_\d+\.csv"],
    dest_entity_id="bronze.files_{region}",
    tags={"source": "sftp"},
    filetype="csv",
)
