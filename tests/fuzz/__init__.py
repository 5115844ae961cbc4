"""Random problems for every public function against float64, and damaged files for every reader.

``make fuzz SECONDS=60``. A failing case is printed as NAME:SEED, and ``make fuzz CASE=NAME:SEED``
repeats it.
"""
