"""The only clock, the only metrics: how fast and how accurate a bundle is, measured through the SDK from outside.

Reads bundles and plain evaluation folders (`evalset.py`), never a data set package. `run.py` is the command: `plan.py`
says what is measured, `cells.py` and `turns.py` measure it, `report.py` writes it down, `require.py` holds bars to it.
"""
