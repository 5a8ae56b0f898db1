"""The errors of real labellers and models, made on purpose and labelled, so that what finds them can be judged.

`model.py` says which errors and how often, `page.py` holds one image's rows while they are changed,
`boxes.py`, `phrases.py` and `captions.py` make the changes, `apply.py` makes them in their order.
Nothing here knows a model or reads a pixel of the image.
"""
