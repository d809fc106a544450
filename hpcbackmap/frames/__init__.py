"""The frame store: ingest, stream, export."""
