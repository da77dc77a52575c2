// Decides for how many frames a run of the network is used, from the time that frames take.

const HELD_S = 0.25; // of the motion, after which a run is not used any more
const TOO_SLOW = 1.05, ROOM = 0.9; // load, the time of a frame over its interval, that lowers and raises the quality
const SMOOTH = 0.1; // weight of a frame in the averages

export class Pace {
  /** fps: of the motion; most: frames for which a run may be used. */
  constructor(fps, most) {
    this.most = most;
    this.every = 1; // frames for which a run is used
    this.networkMs = 0; // of a run, moving average
    this.otherMs = 0; // of a frame without the network, moving average
    this.intervalMs = 1000 / fps;
    this.reach = Math.round(HELD_S * fps); // frames of the motion
  }

  /**
   * Counts a computed frame.
   * @param {number} frameMs time of the frame
   * @param {number | null} networkMs of it that of the network; null: it was not run
   */
  add(frameMs, networkMs) {
    const average = (before, value) => before + (value - before) * (before ? SMOOTH : 1);
    this.otherMs = average(this.otherMs, frameMs - (networkMs ?? 0));
    if (networkMs !== null) this.networkMs = average(this.networkMs, networkMs);
    if (this.#load(this.every) > TOO_SLOW && this.every < this.most) this.every++;
    else if (this.every > 1 && this.#load(this.every - 1) < ROOM) this.every--;
  }

  #load(every) {
    return (this.otherMs + this.networkMs / every) / this.intervalMs;
  }
}
