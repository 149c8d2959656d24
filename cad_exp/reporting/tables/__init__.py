"""The table of a study, from its config in experiments/ and the results.json files of its runs."""
