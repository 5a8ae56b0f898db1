-- title: Files of another version of the format
-- They are read without the columns that they lack, or have as another type; columns unknown here are ignored.
-- Records of runs are left out: those of older versions say less, and are complete nevertheless.
SELECT file, format, missing_columns, other_columns
FROM shards
WHERE tables <> 'runs' AND (len(missing_columns) > 0 OR len(other_columns) > 0)
    OR format IS NOT NULL AND format <> (SELECT format FROM dataset)
