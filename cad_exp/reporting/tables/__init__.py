"""The table of a study, from its config in conf/experiment/ and the results.json files of its runs."""
