"""Long work: what runs, what it says, who may see it, and how it ends."""
