"""The wire contract of kitd: what client and daemon say to each other, and nothing that acts."""
