"""A camera drives a photo while it films: controls, follower, the call, and where its frames go."""
