"""Do the scores predict what ablations do?"""
