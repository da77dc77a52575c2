"""A camera or a microphone drives a photo: controls, follower, sound, the call, and where its frames go."""
