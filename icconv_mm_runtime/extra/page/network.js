// Runs an exported network, in a Worker. Preprocessing and decoding equal those of icconv_mm_runtime (images.py,
// results.py, grouping.py). Sizes and points are (x, y). Math.fround keeps the float32 arithmetic of NumPy.

const f32 = Math.fround;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (count, make = (i) => i) => Array.from({ length: count }, (_, i) => make(i));
const both = (make) => [make(0), make(1)]; // for the axes x and y
const roundEven = (value) => (Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

// --- from an image {size, data: planes of B, G and R} to the inputs of the network
function emptyImage({ image }, size, limits) {
  const [area, isLarge] = [size[0] * size[1], Math.max(...size) > limits.MAX_SIDE];
  if (area >= 1 && !isLarge && area <= limits.MAX_LEVEL_PIXELS) return { size, data: new Uint8Array(3 * area) };
  throw new Error(`${image.size.join('x')} pixels would become ${size.join('x')}`);
}
// Returns a function that gives row y of an interpolation, overwritten by the next. A column or line begins with two
// places; `across` gives the value of a column in a row of the source, `down` that between two of them.
function interpolated(columns, lines, across, down) {
  const [above, below, out] = range(3, () => ({ y: null, row: new Float64Array(columns.length) }));
  const fill = (entry, y) => {
    if (entry.y !== y) columns.forEach((column, x) => { entry.row[x] = across(y, column); });
    entry.y = y;
  };
  return (y) => {
    [above, below].forEach((entry, i) => fill(entry, lines[y][i]));
    for (let x = 0; x < columns.length; x++) out.row[x] = down(above.row[x], below.row[x], lines[y]);
    return out.row;
  };
}
// Fills the target; a column or line is [first, second, weight of the first, of the second], -1 outside the source.
function interpolate(source, target, columns, lines, combine, border) {
  const [width, height] = source.size;
  for (let plane = 0; plane < 3; plane++) {
    const at = (y, x) => (x < 0 || y < 0 ? border[plane] : source.data[(plane * height + y) * width + x]);
    const across = (y, column) => at(y, column[0]) * column[2] + at(y, column[1]) * column[3];
    const rowAt = interpolated(columns, lines, across, combine);
    lines.forEach((_, y) => target.data.set(rowAt(y), (plane * lines.length + y) * columns.length));
  }
  return target;
}
// OpenCV's bilinear resize: weights of 11 bits, and the mean of four pixels where both sides become half as long.
function resize(sample, size, limits) {
  const [source, target] = [sample.levels[0], emptyImage(sample, size, limits)];
  const isHalf = size.every((side, axis) => source.size[axis] === 2 * side);
  const weights = (axis) => range(size[axis], (place) => {
    if (isHalf) return [2 * place, 2 * place + 1, 1, 1];
    const last = source.size[axis] - 1;
    const exact = f32((place + 0.5) * (1 / (size[axis] / source.size[axis])) - 0.5);
    const first = Math.floor(exact);
    const share = axis === 0 && (first < 0 || first >= last) ? 0 : f32(exact - first);
    const integers = [f32(f32(1 - share) * 2048), share * 2048].map(roundEven);
    return [clip(first, 0, last), clip(first + 1, 0, last), ...integers];
  });
  const combine = isHalf ? (a, b) => (a + b + 2) >> 2
    : (a, b, line) => (((line[2] * (a >> 4)) >> 16) + ((line[3] * (b >> 4)) >> 16) + 2) >> 2;
  sample.scale = both((axis) => size[axis] / source.size[axis]);
  sample.levels = [interpolate(source, target, weights(0), weights(1), combine)];
}
// warpAffine of OpenCV 4, in steps of 1/32 pixel (warping.py): the region of `extent` around `center` becomes `size`.
function warp(sample, size, extent, center, border, limits) {
  const ratio = both((axis) => size[axis] / extent[axis]);
  const places = (axis) => {
    const inverse = ratio[1 - axis] * (1 / (ratio[0] * ratio[1]));
    const start = -inverse * (size[axis] / 2 - ratio[axis] * center[axis]);
    const rounded = (place) => roundEven(place * 1024);
    const inside = (place) => (place >= 0 && place < sample.image.size[axis] ? place : -1);
    return range(size[axis], (i) => {
      const exact = inverse * i;
      const place = ((axis ? rounded(exact + start) : rounded(exact) + rounded(start)) + 16) >> 5;
      return [inside(place >> 5), inside((place >> 5) + 1), 32 - (place & 31), place & 31];
    });
  };
  const combine = (a, b, line) => (a * line[2] + b * line[3] + 512) >> 10;
  return interpolate(sample.image, emptyImage(sample, size, limits), places(0), places(1), combine, border);
}
// Copies an image from `start` on into one of another size.
function copied(sample, source, size, start, border, limits) {
  const inside = (place, axis) => (place < source.size[axis] ? place : -1);
  const places = (axis) => range(size[axis], (i) => [inside(i + start[axis], axis), -1, 1, 0]);
  return interpolate(source, emptyImage(sample, size, limits), places(0), places(1), (a) => a, border);
}

const STEPS = {
  resize(sample, { scale, keep_ratio: keepRatio }, limits) {
    const sides = sample.levels[0].size;
    const factor = Math.min(Math.max(...scale) / Math.max(...sides), Math.min(...scale) / Math.min(...sides));
    resize(sample, keepRatio ? sides.map((side) => Math.trunc(side * factor + 0.5)) : scale, limits);
  },
  resize_edge(sample, { scale, edge }, limits) {
    const [width, height] = sample.levels[0].size;
    const isWidth = edge === 'width' || (edge === 'short' && width < height) || (edge === 'long' && width > height);
    const size = isWidth ? [scale, (scale * height) / width] : [(scale * width) / height, scale];
    resize(sample, size.map(Math.trunc), limits);
  },
  center_crop(sample, { size }, limits) {
    const [source] = sample.levels;
    const start = both((axis) => Math.max(0, roundEven((source.size[axis] - size[axis]) / 2)));
    const kept = both((axis) => Math.min(size[axis], source.size[axis] - start[axis]));
    sample.levels = [copied(sample, source, kept, start, [0, 0, 0], limits)];
  },
  pad(sample, { size, value }, limits) {
    const [source] = sample.levels;
    const padded = both((axis) => Math.max(size[axis], source.size[axis]));
    sample.levels = [copied(sample, source, padded, [0, 0], value.map(roundEven), limits)];
  },
  pyramid(sample, { input_size: inputSize, scales, size_divisor: divisor, stride }, limits) {
    const [[width, height], smallest] = [sample.image.size, Math.min(...scales)];
    const divisible = (side) => Math.ceil(side / divisor) * divisor;
    const short = divisible(smallest * inputSize[width < height ? 0 : 1]);
    const long = divisible((short / Math.min(width, height)) * Math.max(width, height));
    const least = width < height ? [short, long] : [long, short];
    const base = least.map((side) => Math.trunc(side / smallest));
    const extent = width < height ? [width, (base[1] / base[0]) * width] : [(base[0] / base[1]) * height, height];
    const center = [width / 2, height / 2].map(roundEven);
    sample.levels = scales.map((scale) => {
      const sides = least.map((side) => Math.trunc((side * scale) / smallest));
      const size = sides.map((side) => Math.max(stride, Math.trunc(side / stride + 0.5) * stride));
      return warp(sample, size, extent, center, [0, 0, 0], limits);
    });
    sample.region = { size: base, center, extent: extent.map(f32) };
  },
  fit(sample, { input_size: size, value }, limits) {
    const sides = sample.image.size;
    const aspect = sides[0] / sides[1];
    const actual = [Math.min(size[0], size[1] * aspect), Math.min(size[1], size[0] / aspect)];
    const extent = both((axis) => f32((sides[axis] * size[axis]) / actual[axis]));
    const center = [sides[0] / 2, sides[1] / 2];
    sample.levels = [warp(sample, size, extent, center, value.map(roundEven), limits)];
    sample.region = { size, center, extent };
  },
};
// Returns the image on its way, and the inputs of a batch of it alone by name: type, data and dims of each tensor.
export function preprocess(image, { steps, batch }, limits) {
  const [sample, inputs] = [{ image, levels: [image], scale: [1, 1], region: null }, {}];
  for (const step of steps) STEPS[step.op](sample, step, limits);
  sample.levels.forEach((level, number) => {
    const size = level.size.map((side) => Math.ceil(side / batch.divisor) * batch.divisor);
    const fixed = batch.fixed && [batch.fixed[1], batch.fixed[0]];
    if (fixed && both((axis) => size[axis] - fixed[axis]).some((more) => more > 0 || (more < 0 && !batch.sized))) {
      throw new Error(`needs an input of ${size.join('x')} pixels, the network allows ${fixed.join('x')}`);
    }
    const { data, size: [width, height] } = copied(sample, level, fixed || size, [0, 0], [0, 0, 0], limits);
    inputs[number ? `image_${number}` : 'image'] = { type: 'uint8', data, dims: [1, 3, height, width] };
    if (!number) sample.inputSize = [width, height];
  });
  const data = new Float32Array([...sample.levels[0].size.toReversed(), 1 / sample.scale[0], 1 / sample.scale[1]]);
  return { sample, inputs: batch.sized ? { ...inputs, size: { type: 'float32', data, dims: [1, 4] } } : inputs };
}

// --- from the outputs of the network, data and dims by name, to predictions in pixels of the image
// Returns for each place two of `count` cells, and the weight of the second.
function pairs(places, count) {
  const firsts = places.map((place) => Math.min(Math.trunc(place), count - 1));
  return firsts.map((first, i) => [first, Math.min(first + 1, count - 1), f32(places[i] - first)]);
}

function floatRows(values, stride, columns, lines) {
  const between = (a, b, share) => f32(f32(a * f32(1 - share)) + f32(b * share));
  const across = (y, column) => between(values[y * stride + column[0]], values[y * stride + column[1]], column[2]);
  return interpolated(columns, lines, across, (a, b, line) => between(a, b, line[2]));
}
// Pastes the probabilities [rows, columns] of a box into a mask {start, size, data} of the pixels around the box.
function paste(values, [rows, columns], box, sides, threshold) {
  const start = both((axis) => clip(Math.floor(box[axis]) - 1, 0, sides[axis]));
  const end = both((axis) => clip(Math.ceil(box[axis + 2]) + 1, 0, sides[axis]));
  const size = both((axis) => Math.max(end[axis] - start[axis], 0));
  const cells = (axis, count) => pairs(range(size[axis], (i) => {
    const extent = f32(box[axis + 2] - box[axis]);
    const share = f32(f32(start[axis] + i + 0.5 - box[axis]) / extent);
    const place = f32(f32(f32(f32(f32(share * 2) - 1) + 1) * count) / 2 - 0.5);
    return clip(f32((extent ? place : (count - 1) / 2) + 1), 0, count + 1);
  }), count + 2);
  const [wide, line] = [columns + 2, (y) => values.subarray(y * columns, (y + 1) * columns)];
  const padded = new Float32Array((rows + 2) * wide); // with a border of zeros
  for (let y = 0; y < rows; y++) padded.set(line(y), (y + 1) * wide + 1);
  const rowAt = floatRows(padded, wide, cells(0, columns), cells(1, rows));
  const data = new Uint8Array(size[0] * size[1]);
  for (let y = 0; y < size[1]; y++) data.set(rowAt(y).map((value) => value >= f32(threshold)), y * size[0]);
  return { start, size, data };
}
function decodeBoxes(task, { boxes, scores, labels, masks }, { image }, limits) {
  let pixels = 0;
  const objects = range(scores.data.length).filter((i) => scores.data[i] > 0).map((i) => {
    const box = Array.from(boxes.data.subarray(4 * i, 4 * i + 4));
    const object = { box, score: scores.data[i], label: Number(labels.data[i]) };
    if (!masks) return object;
    const values = masks.data.subarray(i * masks.dims[2] * masks.dims[3]);
    object.mask = paste(values, masks.dims.slice(2), box, image.size, task.mask_threshold);
    if ((pixels += object.mask.data.length) > limits.MAX_WEB_MASK_PIXELS) throw new Error('the masks are too large');
    return object;
  });
  return { objects };
}
function decodeMap(task, { logits }, { image: { size }, levels: [level] }) {
  const [classes, rows, columns] = logits.dims.slice(1);
  if (classes === 1 && task.threshold === null) throw new Error('logits of one class need a threshold in the metadata');
  const [across, down] = level.size.map((source, axis) => pairs(range(size[axis], (i) => {
    if (task.align_corners) return f32(i * f32(size[axis] > 1 ? (source - 1) / (size[axis] - 1) : 0));
    return Math.max(f32(f32(f32(i + 0.5) * f32(source / size[axis])) - 0.5), 0);
  }), source));
  const maps = range(classes, (label) => logits.data.subarray(label * rows * columns));
  const rowsAt = maps.map((values) => floatRows(values, columns, across, down));
  const [data, best] = [new (classes <= 256 ? Uint8Array : Int32Array)(size[0] * size[1]), new Float32Array(size[0])];
  for (let y = 0, start = 0; y < size[1]; y++, start += size[0]) {
    best.fill(-Infinity);
    rowsAt.forEach((rowAt, label) => rowAt(y).forEach((value, x) => {
      if (value > best[x]) [best[x], data[start + x]] = [value, label];
    }));
    if (classes === 1) best.forEach((value, x) => { data[start + x] = 1 / (1 + Math.exp(-value)) > task.threshold; });
  }
  return { map: { start: [0, 0], size, data } };
}
// Returns the highest peaks of a keypoint, best first.
function peaksOf({ heat, tags, width, height }, { max_num_people: most, nms_kernel: side, detection_threshold }) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height;
  const offsets = range(side * side, (i) => [(i % side) - (side >> 1), Math.floor(i / side) - (side >> 1)]);
  const peaks = [];
  heat.forEach((score, i) => {
    if (!(score > f32(detection_threshold))) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    const isHigher = ([dx, dy]) => inside(x + dx, y + dy) && heat[i + dy * width + dx] > score;
    if (!offsets.some(isHigher)) peaks.push({ x, y, score, tags: tags.map((map) => map[i]) });
  });
  return peaks.sort((a, b) => b.score - a.score).slice(0, most);
}
// Returns the column of each row in the cheapest assignment, -1 for none; among equals, the one scipy returns.
function assignment(cost) {
  const [count, width] = [cost.length, cost[0].length];
  const transposed = count > width && assignment(cost[0].map((_, column) => cost.map((row) => row[column])));
  if (transposed) return cost.map((_, row) => transposed.indexOf(row));
  const [u, v, ofRow, ofColumn] = [count, width, count, width].map((size, i) => new Array(size).fill(i < 2 ? 0 : -1));
  for (let current = 0; current < count; current++) { // a shortest path assigns a column to one more row
    const [shortest, before] = [new Array(width).fill(Infinity), new Array(width).fill(-1)];
    const [remaining, rows] = [range(width).reverse(), []];
    let [row, least, column] = [current, 0, -1];
    for (; row >= 0; row = ofColumn[column]) {
      rows.push(row);
      for (const each of remaining) {
        const through = least + cost[row][each] - u[row] - v[each];
        if (through < shortest[each]) [shortest[each], before[each]] = [through, row];
      }
      least = Math.min(...remaining.map((each) => shortest[each]));
      const nearest = range(remaining.length).filter((i) => shortest[remaining[i]] === least);
      const place = nearest.findLast((i) => ofColumn[remaining[i]] < 0) ?? nearest[0];
      column = remaining[place];
      remaining[place] = remaining.at(-1);
      remaining.pop();
    }
    u[current] += least;
    for (const each of rows.slice(1)) u[each] += least - shortest[ofRow[each]];
    for (const each of range(width)) if (!remaining.includes(each)) v[each] -= least - shortest[each];
    do {
      row = ofColumn[column] = before[column];
      [ofRow[row], column] = [column, ofRow[row]];
    } while (row !== current);
  }
  return ofRow;
}
function assignByTag(peaks, order, threshold, most) {
  const people = [];
  for (const keypoint of order.filter((each) => peaks[each].length)) {
    const [own, known] = [peaks[keypoint], people.slice(0, most)];
    const distances = own.map(({ tags }) =>
      known.map(({ sums, count }) => Math.hypot(...tags.map((tag, level) => tag - sums[level] / count))));
    const costs = distances.map((row, i) => row.map((distance) => roundEven(distance) * 100 - own[i].score));
    const columns = known.length ? assignment(costs) : [];
    own.forEach(({ x, y, score, tags }, i) => {
      let person = distances[i][columns[i]] < threshold ? known[columns[i]] : null;
      if (!person) people.push(person = { points: peaks.map(() => [0, 0, 0]), sums: tags.map(() => 0), count: 0 });
      person.points[keypoint] = [x, y, score];
      person.sums = person.sums.map((sum, level) => sum + tags[level]);
      person.count += 1;
    });
  }
  return people.slice(0, most).map(({ points }) => points);
}
// Returns the centre of a pixel, shifted by a quarter of a pixel towards the larger neighbour, and its score.
function shifted({ heat, width, height }, x, y) {
  const at = (u, v) => heat[clip(v, 0, height - 1) * width + clip(u, 0, width - 1)];
  const quarter = (isLarger) => 0.5 + (isLarger ? 0.25 : -0.25);
  return [x + quarter(at(x + 1, y) > at(x - 1, y)), y + quarter(at(x, y + 1) > at(x, y - 1)), at(x, y)];
}
// Returns the first pixel that maximises heatmap - round(|tag - mean|), which is never above the heatmap.
function bestPixel({ heat, tags, width }, means) {
  let [best, place] = [-Infinity, 0];
  for (let i = 0; i < heat.length; i++) {
    if (heat[i] <= best) continue;
    let sum = 0;
    for (let level = 0; level < tags.length; level++) sum = f32(sum + f32(f32(tags[level][i] - means[level]) ** 2));
    const value = f32(heat[i] - roundEven(f32(Math.sqrt(sum))));
    if (value > best) [best, place] = [value, i];
  }
  return [place % width, Math.floor(place / width)];
}
function groupPeople(heatmaps, allTags, options, limits) {
  const [[count, height, width], levels] = [heatmaps.dims.slice(1), allTags.dims[1]];
  const map = (data, place) => data.subarray(place * width * height, (place + 1) * width * height);
  const maps = range(count, (k) => {
    const tags = range(levels, (level) => map(allTags.data, level * count + k));
    return { heat: map(heatmaps.data, k), tags, width, height };
  });
  const peaks = maps.map((each) => peaksOf(each, options));
  const found = peaks.flat().length;
  if (found > limits.MAX_PEAKS) throw new Error(`${found} peaks are too many, at most ${limits.MAX_PEAKS} are grouped`);
  const coco = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16]; // head and torso before limbs
  const order = options.keypoint_order ?? (count === coco.length ? coco : range(count));
  const most = options.ignore_too_much ? options.max_num_people : undefined;
  return assignByTag(peaks, order, options.tag_threshold, most).map((points) => {
    const seen = range(count).filter((k) => points[k][2] > 0);
    const tagOf = (k, level) => maps[k].tags[level][points[k][1] * width + points[k][0]];
    const means = range(levels, (level) => f32(seen.reduce((sum, k) => f32(sum + tagOf(k, level)), 0) / seen.length));
    const keypoints = points.map(([x, y, score], k) => {
      if (score > 0) return options.adjust ? shifted(maps[k], x, y) : [x, y, score];
      const filled = options.refine ? shifted(maps[k], ...bestPixel(maps[k], means)) : [0, 0, 0];
      return filled[2] > 0 ? filled : [x, y, score];
    });
    return { keypoints, score: points.reduce((sum, point) => sum + point[2], 0) / count };
  });
}

function decodePose(task, { heatmaps, tags, keypoints, keypoint_scores: own, scores }, sample, limits) {
  const extent = both((axis) => sample.inputSize[axis] / sample.scale[axis]);
  const center = both((axis) => f32(extent[axis] / 2 + (0.5 / sample.scale[axis] - 0.5)));
  const shown = sample.region ?? { size: sample.inputSize, center, extent: extent.map(f32) };
  const place = (value, axis) =>
    (value / shown.size[axis]) * shown.extent[axis] + shown.center[axis] - f32(0.5 * shown.extent[axis]);
  if (task.grouping) {
    const factor = both((axis) => f32(shown.size[axis] / heatmaps.dims[3 - axis]));
    const moved = ([x, y, score]) => [place(f32(x * factor[0]), 0), place(f32(y * factor[1]), 1), score];
    const people = groupPeople(heatmaps, tags, task.grouping, limits);
    return { people: people.map((person) => ({ ...person, keypoints: person.keypoints.map(moved) })) };
  }
  const point = (i) => [...both((axis) => place(keypoints.data[2 * i + axis], axis)), own.data[i]];
  const points = (i) => range(keypoints.dims[2], (k) => point(i * keypoints.dims[2] + k));
  const found = range(scores.data.length).filter((i) => scores.data[i] > 0);
  return { people: found.map((i) => ({ keypoints: points(i), score: scores.data[i] })) };
}
const DECODERS = { detection: decodeBoxes, instance: decodeBoxes, semantic: decodeMap, pose: decodePose };
// Returns the predictions of a task: {objects}, {map}, {people} or {scores}.
export function decode(task, outputs, sample, limits) {
  const own = Object.fromEntries(task.outputs.map((name) => {
    const key = task.name ? `${task.name}.${name}` : name;
    if (!outputs[key]) throw new Error(`the network gives no output ${key}`);
    const isRight = (value) => typeof value === 'bigint' || Number.isFinite(value);
    if (!outputs[key].data.every(isRight)) throw new Error(`the output ${key} is not finite; has training diverged?`);
    return [name, outputs[key]];
  }));
  const decoder = DECODERS[task.kind] ?? (() => ({ scores: Array.from(own.scores.data) })); // of classes
  return decoder(task, own, sample, limits);
}

// --- the Worker: takes {files}, then {image, name}; answers {stage}, {ready}, {found} or {failed}
let [network, work] = [null, Promise.resolve()]; // one image after the other
// Returns what the page shows of the network. `files` has Blobs by name in a page of a single file.
async function open(files) {
  const url = (name) => (files[name] ? URL.createObjectURL(files[name]) : new URL(name, import.meta.url).href);
  const read = async (name) => {
    postMessage({ stage: `loading ${name}` });
    const response = await fetch(url(name));
    if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
    return response.arrayBuffer();
  };
  const description = await new Response(await read('network.json')).json();
  const [ort, cores] = [await import(url('onnxruntime-web.js')), navigator.hardwareConcurrency ?? 1];
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(cores, clip(Math.ceil(cores / 2), 2, 8)) : 1;
  ort.env.wasm.wasmBinary = await read('onnxruntime-web.wasm');
  const model = new Uint8Array(await read('network.onnx'));
  const broken = ({ message }) => { throw new Error(`network.onnx is no network for ONNX Runtime Web (${message})`); };
  const options = { executionProviders: ['wasm'], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create(model, options).catch(broken);
  network = { ...description, ort, session };
  return { ...description, threads: ort.env.wasm.numThreads };
}
function planesOf(bitmap, { width, height } = bitmap) {
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const [area, data] = [width * height, new Uint8Array(3 * width * height)];
  for (let i = 0; i < 3 * area; i++) data[i] = rgba[4 * (i % area) + 2 - Math.floor(i / area)];
  return { size: [width, height], data };
}
async function predict(given) {
  const { ort, session, metadata, limits } = network;
  const times = [performance.now()];
  const broken = () => { throw new Error('is no image that this browser can read, or is damaged'); };
  const asStored = { colorSpaceConversion: 'none' };
  const bitmap = given instanceof ImageBitmap ? given : await createImageBitmap(given, asStored).catch(broken);
  const { sample, inputs } = preprocess(planesOf(bitmap), metadata, limits);
  times.push(performance.now());
  const tensors = Object.entries(inputs).map(([name, each]) => [name, new ort.Tensor(each.type, each.data, each.dims)]);
  const outputs = await session.run(Object.fromEntries(tensors));
  times.push(performance.now());
  const tasks = metadata.tasks.map((task) => [task.name, decode(task, outputs, sample, limits)]);
  times.push(performance.now());
  return { bitmap, tasks: Object.fromEntries(tasks), times: times.slice(1).map((each, i) => each - times[i]) };
}

if (globalThis.WorkerGlobalScope) globalThis.onmessage = ({ data: { files, image, name } }) => {
  work = work.then(async () => {
    if (files) return postMessage({ ready: await open(files) });
    const found = await predict(image);
    postMessage({ found, name }, [found.bitmap]);
  }).catch((error) => postMessage({ failed: `${name ? `${name}: ` : ''}${error.message ?? error}` }));
};
