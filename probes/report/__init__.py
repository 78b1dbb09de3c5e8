"""From records to tables, pictures and a page."""
