"""Drawn scenes with exact truth: a world small enough to ship, in which every statement can be checked.

world.py     the words and colours that exist        layout.py    what stands where, and what hides what
shapes.py    the outline of each kind                language.py  captions, with the spans of their phrases
signs.py     panels with readable text               scene.py     one scene: pixels and annotations
draw.py      backgrounds and antialiased painting    write.py     folders of scenes; sheet.py: a picture of them
"""
