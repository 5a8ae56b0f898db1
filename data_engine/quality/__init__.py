"""How good annotations are, measured against truth. Knows no model: both sides are annotation sources.

Truth is what a source of the data set says: `human` labels that came with it, or the `truth` of drawn
scenes. A number from here, on images held out from training, decides whether a round was a gain.
"""
