"""The only clock, the only metrics: how fast and how accurate a bundle is, measured through the SDK from outside.

Reads bundles and plain evaluation folders (`evalset.py`), never a data set package.
"""
