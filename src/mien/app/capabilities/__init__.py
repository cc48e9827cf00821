"""What a studio can do, a file for each kind of capability; `Studio` is all of them."""
