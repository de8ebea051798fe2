"""Reports of results: a self-contained HTML page, tables, figures."""
