"""The report of a face lab on a folder of people, part by part."""
