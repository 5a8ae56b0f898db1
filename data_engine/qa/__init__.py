"""Dataset QA: SQL over a data set, one query per file."""
