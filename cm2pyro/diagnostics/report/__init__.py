"""The report of a fit: one HTML page. `material` gathers, one file a subject draws and tells, `page` writes."""
