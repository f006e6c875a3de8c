"""Images and masks at the border of the program: reading, writing, codecs, polarity and blending."""
