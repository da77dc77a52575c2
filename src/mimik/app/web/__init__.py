"""The app of `mimik web`: animate, learn a person, edit and verify in a browser on this computer.

It uses the same functions as the command line. Each visitor has a separate folder, which is deleted at the end of the
session; no other file of this computer can be read or written. Gradio is imported when the app is built.
"""
