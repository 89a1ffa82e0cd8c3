"""What is in a data set: measured on its tables, shown in a terminal and as a page."""
