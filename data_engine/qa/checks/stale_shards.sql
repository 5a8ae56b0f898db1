-- title: Files that are out of date
-- By the fingerprints in their footers. Running the stage again makes them anew.
SELECT file, stale, fingerprint FROM shards WHERE stale IS NOT NULL
