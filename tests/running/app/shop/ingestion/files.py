from kindling.file_ingestion import FileIngestionEntries

FileIngestionEntries.entry(
    entry_id="dropped",
    name="Files that are dropped",
    patterns=[r"(?P<kind>\w+)_\d+\.csv"],
    dest_entity_id="dropped.{kind}",
    tags={},
    filetype="csv",
)
