// Reads the data of a motion file, frame by frame. Offsets and coding are in export.json.

const KINDS = { float32: Float32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array };

export class Motion {
  /**
   * @param {object} about record in export.json
   * @param {ArrayBuffer} bytes the decompressed file
   */
  constructor(about, bytes) {
    Object.assign(this, about);
    this.arrays = {};
    for (const array of about.arrays) this.arrays[array.name] = this.#prepared(array, bytes);
  }

  #prepared(array, bytes) {
    const Kind = KINDS[array.type];
    if (array.coding === "plain") {
      const count = array.shape.reduce((a, b) => a * b, 1);
      return { ...array, values: new Kind(bytes, array.offset, count) };
    }
    const places = array.coding === "parts" ? this.#boxed(array) : regular(array);
    const count = places.reduce((sum, { planes, height, width }) => sum + planes * height * width, 0);
    return { ...array, Kind, places, count, coded: new Uint8Array(bytes, array.offset, count * Kind.BYTES_PER_ELEMENT) };
  }

  #boxed({ boxes, planes, fine }) {
    const { values } = this.arrays[boxes];
    let begin = 0;
    return Array.from({ length: values.length / 4 }, (_, i) => {
      const box = values.subarray(4 * i, 4 * i + 4);
      const place = { begin, box, planes, height: fine * box[3], width: fine * box[2] };
      begin += planes * place.height * place.width;
      return place;
    });
  }

  /** A row of an uncoded array. */
  row(name, index) {
    const { values, shape } = this.arrays[name];
    const size = values.length / shape[0];
    return values.subarray(index * size, (index + 1) * size);
  }

  /** Parts of a coded array for a frame: a list of { values, planes, height, width, box, unit }. */
  parts(name, index) {
    const array = this.arrays[name];
    const each = array.per_frame ?? 1;
    return array.places.slice(index * each, (index + 1) * each).map((place) => ({ ...place, unit: array.unit, values: decoded(array, place) }));
  }
}

function regular({ shape }) {
  const [count, planes, height, width] = shape;
  return Array.from({ length: count }, (_, i) => ({ begin: i * planes * height * width, planes, height, width }));
}

/** Integrates differences to the left and upper neighbors; sums wrap around like the differences. */
function decoded({ Kind, coded, count }, { begin, planes, height, width }) {
  const wide = Kind.BYTES_PER_ELEMENT === 2;
  const out = new Kind(planes * height * width);
  for (let row = 0, i = 0; row < planes * height; row++) {
    const first = row % height === 0;
    for (let x = 0, along = 0; x < width; x++, i++) {
      const at = begin + i;
      const zigzag = wide ? coded[at] | (coded[count + at] << 8) : coded[at];
      along += (zigzag >> 1) ^ -(zigzag & 1);
      out[i] = first ? along : along + out[i - width];
    }
  }
  return out;
}
