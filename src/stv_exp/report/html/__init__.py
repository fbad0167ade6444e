"""`report.html`: one page that holds all of a report and needs nothing else, neither a network nor the data."""
