"""How kitd is set up: files, environment and flags become one value, and every wrong word is named."""
