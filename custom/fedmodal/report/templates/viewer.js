"use strict";
// Slices of a case in three planes. Volumes have axes (S, P, L): from the feet, from the front, from the right.
(() => {
  const box = document.getElementById("viewer");
  if (!box) return;
  const cases = JSON.parse(document.getElementById("cases-data").textContent);
  const organs = JSON.parse(document.getElementById("organs-data").textContent);
  const planes = [
    { name: "axial", fixed: 0, down: 1, across: 2, flip: false },
    { name: "coronal", fixed: 1, down: 0, across: 2, flip: true },
    { name: "sagittal", fixed: 2, down: 0, across: 1, flip: true },
  ];
  const picker = box.querySelector("select");
  const status = document.getElementById("status");
  const colours = organs.map((organ) => [1, 3, 5].map((at) => parseInt(organ.colour.slice(at, at + 2), 16)));
  const wrong = [255, 0, 255];
  let shown = null; // { shape, spacing, grey, truth, found, at: [s, p, l] }

  const pixels = async (url) => {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context.getImageData(0, 0, picture.width, picture.height);
  };

  const untile = (picture, channel, { shape, across }) => {
    const [slices, rows, columns] = shape;
    const volume = new Uint8Array(slices * rows * columns);
    for (let s = 0, to = 0; s < slices; s++) {
      const top = Math.floor(s / across) * rows, left = (s % across) * columns;
      for (let r = 0; r < rows; r++)
        for (let c = 0; c < columns; c++, to++)
          volume[to] = picture.data[4 * ((top + r) * picture.width + left + c) + channel];
    }
    return volume;
  };

  const open = async (number) => {
    const one = cases[number];
    const [image, labels] = await Promise.all([pixels(one.image), pixels(one.labels)]);
    const [slices, rows, columns] = one.shape;
    shown = {
      ...one, grey: untile(image, 0, one), truth: untile(labels, 0, one), found: untile(labels, 1, one),
      at: [one.first, rows >> 1, columns >> 1],
    };
    planes.forEach((plane) => {
      const slider = box.querySelector(`.${plane.name}-slider`);
      slider.max = shown.shape[plane.fixed] - 1;
    });
    draw();
  };

  const mode = () => box.querySelector("input[name=show]:checked").value;
  const visible = () => {
    const on = new Set([...box.querySelectorAll("input[name=organ]:checked")].map((one) => Number(one.value)));
    return (id) => (on.has(id) ? id : 0);
  };

  const drawPlane = (plane, how, kept) => {
    const { shape, spacing, at } = shown;
    const height = shape[plane.down], width = shape[plane.across];
    const canvas = box.querySelector(`.${plane.name} canvas`);
    canvas.width = width;
    canvas.height = height;
    canvas.style.aspectRatio = `${width * spacing[plane.across]} / ${height * spacing[plane.down]}`;
    const step = [shape[1] * shape[2], shape[2], 1];
    const index = (y, x) =>
      at[plane.fixed] * step[plane.fixed] + (plane.flip ? height - 1 - y : y) * step[plane.down] + x * step[plane.across];
    const label = (volume, y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : kept(volume[index(y, x)]));
    const edge = (volume, y, x, id) =>
      label(volume, y - 1, x) !== id || label(volume, y + 1, x) !== id ||
      label(volume, y, x - 1) !== id || label(volume, y, x + 1) !== id;
    const picture = new ImageData(width, height);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const grey = shown.grey[index(y, x)];
        const truth = label(shown.truth, y, x), found = label(shown.found, y, x);
        let colour = null, share = 0.5;
        if (how === "errors") colour = truth === found ? null : wrong;
        else if (how !== "prediction" && truth && (how === "truth" || edge(shown.truth, y, x, truth))) {
          colour = colours[truth - 1];
          share = how === "truth" ? 0.5 : 1;
        } else if (how !== "truth" && found) colour = colours[found - 1];
        const to = 4 * (y * width + x);
        for (let channel = 0; channel < 3; channel++)
          picture.data[to + channel] = colour ? (1 - share) * grey + share * colour[channel] : grey;
        picture.data[to + 3] = 255;
      }
    const context = canvas.getContext("2d");
    context.putImageData(picture, 0, 0);
    context.fillStyle = "rgba(255, 255, 255, 0.25)";
    context.fillRect(at[plane.across], 0, 1, height);
    context.fillRect(0, plane.flip ? height - 1 - at[plane.down] : at[plane.down], width, 1);
    const slider = box.querySelector(`.${plane.name}-slider`);
    slider.value = at[plane.fixed];
    slider.setAttribute("aria-valuetext", `${at[plane.fixed] + 1} of ${shape[plane.fixed]}`);
  };

  const tell = () => {
    const [slices, rows, columns] = shown.shape;
    const start = shown.at[0] * rows * columns, both = {};
    for (let at = start; at < start + rows * columns; at++) {
      const truth = shown.truth[at], found = shown.found[at];
      for (const id of new Set([truth, found])) if (id) (both[id] ??= [0, 0, 0])[0] += truth === found;
      if (truth) both[truth][1]++;
      if (found) both[found][2]++;
    }
    const parts = Object.entries(both).map(
      ([id, [common, truth, found]]) => `${organs[id - 1].name} ${((2 * common) / (truth + found)).toFixed(2)}`,
    );
    const dice = parts.length ? `Dice in this slice: ${parts.join(", ")}` : "no organ in this slice";
    status.textContent = `Axial slice ${shown.at[0] + 1} of ${slices} from the feet; ${dice}.`;
  };

  const draw = () => {
    if (!shown) return;
    const how = mode(), kept = visible();
    planes.forEach((plane) => drawPlane(plane, how, kept));
    tell();
  };

  const go = (axis, place) => {
    shown.at[axis] = Math.min(Math.max(place, 0), shown.shape[axis] - 1);
    draw();
  };

  planes.forEach((plane) => {
    box.querySelector(`.${plane.name}-slider`).addEventListener("input", (event) => go(plane.fixed, Number(event.target.value)));
    const canvas = box.querySelector(`.${plane.name} canvas`);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      go(plane.fixed, shown.at[plane.fixed] - Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("click", (event) => {
      const area = canvas.getBoundingClientRect();
      const x = Math.floor(((event.clientX - area.left) / area.width) * canvas.width);
      const y = Math.floor(((event.clientY - area.top) / area.height) * canvas.height);
      shown.at[plane.across] = x;
      go(plane.down, plane.flip ? canvas.height - 1 - y : y);
    });
  });
  picker.addEventListener("change", () => open(Number(picker.value)));
  box.querySelectorAll("input[name=show], input[name=organ]").forEach((one) => one.addEventListener("change", draw));
  box.hidden = false;
  open(0);
})();
