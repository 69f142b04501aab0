"""What a layer is made of: tar bytes, compression, recipes, the choice of files. Pure and synchronous."""
