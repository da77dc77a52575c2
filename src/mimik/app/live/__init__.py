"""Live calls: a camera or a microphone drives a photo; controls, follower, sound, call and outputs."""
