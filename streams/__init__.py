"""Topic to topic (engine and its tasks) and topic to table (lake, views)."""
