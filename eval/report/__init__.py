"""The report: one HTML page of the results, which needs nothing else to be read."""
