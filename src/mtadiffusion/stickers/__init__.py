"""The embedded world: sticker scenes whose objects, colours, styles, masks and captions are known."""
