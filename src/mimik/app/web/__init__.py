"""The app of `mimik web`: animate, learn a person, edit, verify, in a browser on this computer.

Everything is done by the same functions as on the command line. Each visitor has a folder of their own, which goes with
them; nothing else of this computer can be read or written. Gradio is imported when the app is made.
"""
