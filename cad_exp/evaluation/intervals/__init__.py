"""95 % intervals of what is estimated from images, and of paired changes. None of them collapses at 0 or 1.

Every estimate holds one variant's numbers. `value` is the estimate, and `interval()` its (low, high), or None where the
data say nothing of the spread. `change(before)` is (value, low, high) of the difference of two variants on the same
images, in the same order. The value always lies inside. `words` and `change_words` name the methods for results.json.
"""
