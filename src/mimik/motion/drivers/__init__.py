"""Drivers: whatever moves the person, as a neutral reference and an iterator of motion frames at a constant rate.

To add a kind of driver, write one file here and one line in registry.py:

1. A subclass of driver.Driver with its `kind` and `suffixes` (or `names`, for a driver without a file).
   `open` checks what was given and raises InputError before any model is loaded; it sets the name, the file for the
   manifest (None if there is none), the rate, the number of frames where that is known, and `sound`, the file whose
   sound goes along with the result.
2. `motion(settings)` returns a driver.DrivingMotion: the neutral reference, the motion frames (motion frames.smoothed
   fills gaps and filters raw ones; pass settings.smooth), `close` for threads and files that stay open, and notes for
   the report. The frames are an iterator: read files as a stream, so that memory stays flat. pipeline.prefetch makes
   items ahead in a thread.
3. Its class in registry.KINDS, before the kinds that look into the file. Override `takes` where suffix and names do
   not decide. A setting that only this driver needs is a field of driver.DriverSettings (and of AnimateConfig, which
   render.py copies it from).
4. tests/motion/drivers/test_<file>.py.

stream.rest_reference is the neutral of drivers that give blendshapes only; stream.motion_frame_of makes their frames.
"""
