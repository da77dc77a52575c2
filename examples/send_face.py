"""Drives a person of `mimik live photo.jpg --stream udp://127.0.0.1:11111`: nods, looks around, speaks and blinks."""

import json
import math
import socket
import time

sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
start = time.monotonic()
while (t := time.monotonic() - start) < 20:
    mouth = max(0.0, math.sin(9 * t)) * 0.4
    blink = 1.0 if t % 3 < 0.15 else 0.0
    face = {"jawOpen": mouth, "mouthSmileLeft": 0.3, "mouthSmileRight": 0.3}
    face |= {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}
    head = {"yaw": 12 * math.sin(1.5 * t), "pitch": 5 * math.sin(2.3 * t), "roll": 3 * math.sin(t)}
    sender.sendto(json.dumps({"time": t, "blendshapes": face, "head": head}).encode(), ("127.0.0.1", 11111))
    time.sleep(1 / 30)
