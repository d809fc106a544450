"""Files of users, in and out."""
