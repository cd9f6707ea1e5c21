"""Pages: the HTML report, and markdown for Prefect's UI."""
