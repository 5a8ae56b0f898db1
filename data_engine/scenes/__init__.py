"""Drawn scenes with exact truth: worlds small enough to ship, in which every statement can be checked.

world.py        the words and colours of both worlds     layout.py     what stands where, and what hides what
outlines.py     pieces of shapes                         actions.py    how an action looks
shapes*.py      the outline of each kind                 relations.py  where one thing stands to another
surfaces.py     textures and materials                   language.py   captions, with the spans of their phrases
signs.py        writing on panels and stickers           english.py    plurals, articles, names
draw.py         antialiased painting                     scene.py      one scene: pixels and annotations
backgrounds.py  patterns and clutter                     write.py      folders of scenes
optics.py       light, blur, noise, compression          sheet.py      a picture of them
attributes.py   reads the noun phrases of a text         claims.py     reads its quotations and actions
"""
