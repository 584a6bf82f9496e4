"""Models and runs compared on the same instances: rates with intervals, paired tables, exact tests, in words too.

What failed for a reason that is not the model's is left out and counted; nothing is ever taken for "not resolved" by default.
"""
