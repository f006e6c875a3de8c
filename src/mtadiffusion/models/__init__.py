"""The networks: conditioning, the inpainting branch, its injection into a stock UNet, the latent VGG.

The modules are imported by their own names, so that none loads torch before it is needed.
"""
