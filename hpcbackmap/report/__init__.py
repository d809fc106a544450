"""The HTML page of a campaign."""
