"""Ingest: one file per source format, staged unit by unit, then merged by content into image shards."""
