// Strokes, in the picture's own pixels: drawn on the screen at any zoom, and as the mask that is sent.

export class Painting {
  constructor() {
    this.done = []; // { erase, width, points: [x, y, x, y, ...] }, or "clear"
    this.undone = [];
  }

  // Begin a stroke; `points` of what is returned is what more of it goes to.
  begin(erase, width, x, y) {
    const stroke = { erase, width, points: [x, y] };
    this.done.push(stroke);
    this.undone = [];
    return stroke;
  }

  // Take back the stroke that was begun last, as if it had never been.
  drop() {
    this.done.pop();
  }

  clear() {
    if (this.empty) return;
    this.done.push("clear");
    this.undone = [];
  }

  undo() {
    if (this.done.length) this.undone.push(this.done.pop());
  }

  redo() {
    if (this.undone.length) this.done.push(this.undone.pop());
  }

  // The strokes since it was cleared last.
  get strokes() {
    return this.done.slice(this.done.lastIndexOf("clear") + 1);
  }

  get empty() {
    return !this.strokes.some((stroke) => !stroke.erase);
  }

  // All of it, on a canvas whose unit is the picture's pixel.
  draw(context, colour) {
    for (const stroke of this.strokes) this.drawStroke(context, colour, stroke);
  }

  // One stroke, from its point number `from` on.
  drawStroke(context, colour, { erase, width, points }, from = 0) {
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    if (points.length === 2) context.arc(...points, width / 2, 0, 2 * Math.PI); // of a line without length nothing is drawn
    for (let i = 2 * from; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    points.length === 2 ? context.fill() : context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  // A PNG file of the picture's size, white in the hole and black elsewhere.
  async mask(width, height) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    if (context) {
      this.draw(context, "#fff");
      context.globalCompositeOperation = "destination-over";
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
    }
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    canvas.width = canvas.height = 0; // its memory is given back at once
    if (!blob) throw new Error("This browser has no memory for a picture of that size.");
    return blob;
  }
}
