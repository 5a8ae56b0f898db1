"""The engine: schema, data sets, ingest, recipes, the runner and queries. It knows no model."""

__version__ = "0.1.0"
