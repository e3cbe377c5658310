// Where the picture lies on the stage: as large as fits, or zoomed in and moved.

const MARGIN = 16; // CSS pixels round a picture that fits
const LARGEST = 8; // CSS pixels of a picture's pixel, where it fits
const MOST = 16; // times as large as it fits

export class View {
  constructor(stage, sheet) {
    Object.assign(this, { stage, sheet, width: 1, height: 1, times: 1, x: 0, y: 0 });
  }

  // A picture of this size; all of it.
  show(width, height) {
    Object.assign(this, { width, height });
    this.fit();
  }

  fit() {
    Object.assign(this, { times: 1, x: this.width / 2, y: this.height / 2 });
    this.place();
  }

  // Zoom about a place of the stage, which stays where it is; without one, about its middle.
  zoom(factor, left = this.stage.clientWidth / 2, top = this.stage.clientHeight / 2) {
    const [x, y] = this.pictureAt(left, top);
    this.times = Math.min(Math.max(this.times * factor, 1), MOST);
    this.x += x - this.pictureAt(left, top)[0];
    this.y += y - this.pictureAt(left, top)[1];
    this.place();
  }

  // By CSS pixels.
  move(right, down) {
    this.x -= right / this.scale;
    this.y -= down / this.scale;
    this.place();
  }

  // CSS pixels of a picture's pixel.
  get scale() {
    const across = (this.stage.clientWidth - 2 * MARGIN) / this.width;
    const down = (this.stage.clientHeight - 2 * MARGIN) / this.height;
    return Math.max(Math.min(across, down, LARGEST), 1e-3) * this.times;
  }

  get left() {
    return this.stage.clientWidth / 2 - this.x * this.scale;
  }

  get top() {
    return this.stage.clientHeight / 2 - this.y * this.scale;
  }

  // From CSS pixels of the stage to the picture's own, [x, y].
  pictureAt(left, top) {
    return [(left - this.left) / this.scale, (top - this.top) / this.scale];
  }

  // Lay the sheet where it belongs; no edge of it leaves the stage where there is more of the picture beyond.
  place() {
    const { scale } = this;
    const inside = (at, length, room) => {
      const half = (room / 2 - MARGIN) / scale;
      return length <= 2 * half ? length / 2 : Math.min(Math.max(at, half), length - half);
    };
    this.x = inside(this.x, this.width, this.stage.clientWidth);
    this.y = inside(this.y, this.height, this.stage.clientHeight);
    const { style, classList } = this.sheet;
    style.left = `${this.left}px`;
    style.top = `${this.top}px`;
    style.width = `${this.width * scale}px`;
    style.height = `${this.height * scale}px`;
    classList.toggle("close-up", scale >= 3);
  }
}
