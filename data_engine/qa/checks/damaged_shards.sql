-- title: Files that cannot be read
-- They are left out of everything else. Delete them and run their stage again: only they are made anew.
SELECT file, problem FROM shards WHERE state = 'damaged'
