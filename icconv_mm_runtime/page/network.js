// Runs an exported network, in a Worker. Preprocessing and decoding equal those of icconv_mm_runtime (images.py,
// results.py, grouping.py). Sizes and points are (x, y). Math.fround keeps the float32 arithmetic of NumPy.

const f32 = Math.fround;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (count, make = (i) => i) => Array.from({ length: count }, (_, i) => make(i));
const roundEven = (value) => Math.round(value) - (Math.round(value) - value === 0.5 && Math.round(value) % 2 ? 1 : 0);

// --- from an image {width, height, data: planes of B, G and R} to the inputs of the network

export function planesOf(rgba, width, height) {
  const [area, data] = [width * height, new Uint8Array(3 * width * height)];
  for (let i = 0; i < area; i++) {
    for (let plane = 0; plane < 3; plane++) data[plane * area + i] = rgba[4 * i + 2 - plane];
  }
  return { width, height, data };
}

function emptyImage({ image }, width, height, limits) {
  const fits = Math.min(width, height) >= 1 && Math.max(width, height) <= limits.MAX_SIDE;
  if (!fits || width * height > limits.MAX_LEVEL_PIXELS) {
    throw new Error(`${image.width}x${image.height} pixels would become ${width}x${height}`);
  }
  return { width, height, data: new Uint8Array(3 * width * height) };
}

// Fills the target; a column or line is [first, second, weight of the first, of the second], -1 outside the source.
function interpolate(source, target, columns, lines, combine, border = [0, 0, 0]) {
  for (let plane = 0; plane < 3; plane++) {
    const pixels = source.data.subarray(plane * source.width * source.height);
    const at = (start, x) => (x < 0 ? border[plane] : pixels[start + x]);
    const outside = Int32Array.from(columns, ([, , a, b]) => border[plane] * (a + b));
    const cache = range(2, () => ({ y: -1, row: new Int32Array(target.width) }));
    const rowAt = (y) => {
      const entry = cache[y & 1];
      if (y < 0 || entry.y === y) return y < 0 ? outside : entry.row;
      const start = (entry.y = y) * source.width;
      columns.forEach(([a, b, wa, wb], x) => (entry.row[x] = at(start, a) * wa + at(start, b) * wb));
      return entry.row;
    };
    lines.forEach(([first, second, wa, wb], y) => {
      const [above, below] = [rowAt(first), rowAt(second)];
      const start = (plane * target.height + y) * target.width;
      for (let x = 0; x < target.width; x++) target.data[start + x] = combine(above[x], below[x], wa, wb);
    });
  }
  return target;
}

// OpenCV's bilinear resize: weights of 11 bits, and the mean of four pixels where both sides become half as long.
function resize(sample, width, height, limits) {
  const source = sample.levels[0];
  const target = emptyImage(sample, width, height, limits);
  const weights = (from, to, isRow) => (place) => {
    const exact = f32((place + 0.5) * (1 / (to / from)) - 0.5);
    let [first, share] = [Math.floor(exact), f32(exact - Math.floor(exact))];
    if (!isRow && (first < 0 || first >= from - 1)) [first, share] = [clip(first, 0, from - 1), 0];
    const ends = [clip(first, 0, from - 1), clip(first + 1, 0, from - 1)];
    return [...ends, roundEven(f32(f32(1 - share) * 2048)), roundEven(share * 2048)];
  };
  const isHalf = source.width === 2 * width && source.height === 2 * height;
  const [columns, lines] = isHalf
    ? [width, height].map((count) => range(count, (place) => [2 * place, 2 * place + 1, 1, 1]))
    : [range(width, weights(source.width, width)), range(height, weights(source.height, height, true))];
  interpolate(source, target, columns, lines, isHalf ? (a, b) => (a + b + 2) >> 2
    : (a, b, wa, wb) => (((wa * (a >> 4)) >> 16) + ((wb * (b >> 4)) >> 16) + 2) >> 2);
  sample.scale = [width / source.width, height / source.height];
  sample.levels = [target];
}

// OpenCV's bilinear warpAffine, in steps of 1/32 pixel: scales by `ratio`, so that `center` comes to the middle.
function warp(sample, size, ratio, center, border, limits) {
  const [columns, lines] = ['width', 'height'].map((side, axis) => {
    const inverse = ratio[1 - axis] * (1 / (ratio[0] * ratio[1]));
    const start = roundEven(-inverse * (size[axis] / 2 - ratio[axis] * center[axis]) * 1024) + 16;
    const inside = (place) => (place < sample.image[side] ? Math.max(place, -1) : -1);
    return range(size[axis], (i) => {
      const place = (start + roundEven(inverse * i * 1024)) >> 5;
      return [inside(place >> 5), inside((place >> 5) + 1), 32 - (place & 31), place & 31];
    });
  });
  const combine = (a, b, wa, wb) => (a * wa + b * wb + 512) >> 10;
  return interpolate(sample.image, emptyImage(sample, ...size, limits), columns, lines, combine, border);
}

// Copies the part of an image from (left, top) on into one of another size.
function copied(source, target, left = 0, top = 0, border = [0, 0, 0]) {
  const wide = Math.min(source.width - left, target.width);
  for (let plane = 0; plane < 3; plane++) {
    target.data.fill(border[plane], plane * target.width * target.height, (plane + 1) * target.width * target.height);
    for (let y = 0; y < Math.min(source.height - top, target.height); y++) {
      const start = (plane * source.height + top + y) * source.width + left;
      target.data.set(source.data.subarray(start, start + wide), (plane * target.height + y) * target.width);
    }
  }
  return target;
}

const STEPS = {
  resize(sample, { scale, keep_ratio: keepRatio }, limits) {
    const { width, height } = sample.levels[0];
    const [short, long] = [Math.min(width, height), Math.max(width, height)];
    const factor = Math.min(Math.max(...scale) / long, Math.min(...scale) / short);
    const kept = [Math.trunc(width * factor + 0.5), Math.trunc(height * factor + 0.5)];
    resize(sample, ...(keepRatio ? kept : scale), limits);
  },
  resize_edge(sample, { scale, edge }, limits) {
    const { width, height } = sample.levels[0];
    const isWidth = edge === 'width' || (edge === 'short' && width < height) || (edge === 'long' && width > height);
    if (isWidth) resize(sample, scale, Math.trunc((scale * height) / width), limits);
    else resize(sample, Math.trunc((scale * width) / height), scale, limits);
  },
  center_crop(sample, { size }, limits) {
    const sides = [sample.levels[0].width, sample.levels[0].height];
    const start = sides.map((side, axis) => Math.max(0, roundEven((side - size[axis]) / 2)));
    const kept = sides.map((side, axis) => Math.min(size[axis], side - start[axis]));
    sample.levels = [copied(sample.levels[0], emptyImage(sample, ...kept, limits), ...start)];
  },
  pad(sample, { size, value }, limits) {
    const { width, height } = sample.levels[0];
    const target = emptyImage(sample, Math.max(size[0], width), Math.max(size[1], height), limits);
    sample.levels = [copied(sample.levels[0], target, 0, 0, value.map(roundEven))];
  },
  pyramid(sample, { input_size: inputSize, scales, size_divisor: divisor, stride }, limits) {
    const { width, height } = sample.image;
    const [isPortrait, smallest] = [width < height, Math.min(...scales)];
    const short = Math.ceil((smallest * inputSize[isPortrait ? 0 : 1]) / divisor) * divisor;
    const long = Math.ceil(((short / Math.min(width, height)) * Math.max(width, height)) / divisor) * divisor;
    const least = isPortrait ? [short, long] : [long, short];
    const base = least.map((side) => Math.trunc(side / smallest));
    const extent = isPortrait ? [width, (base[1] / base[0]) * width] : [(base[0] / base[1]) * height, height];
    const center = [roundEven(width / 2), roundEven(height / 2)];
    sample.levels = scales.map((scale) => {
      const sides = least.map((side) => Math.trunc((side * scale) / smallest));
      const size = sides.map((side) => Math.max(stride, Math.trunc(side / stride + 0.5) * stride));
      return warp(sample, size, size.map((side, axis) => side / extent[axis]), center, [0, 0, 0], limits);
    });
    sample.region = { size: base, center, extent: extent.map(f32) };
  },
  fit(sample, { input_size: size, value }, limits) {
    const { width, height } = sample.image;
    const actual = [Math.min(size[0], size[1] * (width / height)), Math.min(size[1], size[0] / (width / height))];
    const extent = [f32((width * size[0]) / actual[0]), f32((height * size[1]) / actual[1])];
    const [center, ratio] = [[width / 2, height / 2], size[0] / extent[0]];
    sample.levels = [warp(sample, size, [ratio, ratio], center, value.map(roundEven), limits)];
    sample.region = { size, center, extent };
  },
};

export function preprocess(image, steps, limits) {
  const sample = { image, levels: [image], scale: [1, 1], region: null };
  for (const step of steps) STEPS[step.op](sample, step, limits);
  return sample;
}

// The inputs of a batch of one image by name: type, data and dims of a tensor.
export function inputsOf(sample, batch, limits) {
  const inputs = {};
  sample.levels.forEach((level, number) => {
    const size = [level.width, level.height].map((side) => Math.ceil(side / batch.divisor) * batch.divisor);
    const fixed = batch.fixed && [batch.fixed[1], batch.fixed[0]];
    if (fixed && size.some((side, axis) => side > fixed[axis] || (side < fixed[axis] && !batch.sized))) {
      throw new Error(`needs an input of ${size[0]}x${size[1]} pixels, the network allows ${fixed[0]}x${fixed[1]}`);
    }
    const { data, width, height } = copied(level, emptyImage(sample, ...(fixed || size), limits));
    if (!number) sample.inputSize = [width, height];
    inputs[number ? `image_${number}` : 'image'] = { type: 'uint8', data, dims: [1, 3, height, width] };
  });
  const { width, height } = sample.levels[0];
  const data = new Float32Array([height, width, 1 / sample.scale[0], 1 / sample.scale[1]]);
  return batch.sized ? { ...inputs, size: { type: 'float32', data, dims: [1, 4] } } : inputs;
}

// --- from the outputs of the network, data and dims by name, to predictions in pixels of the image

// Returns for each place two of `count` cells, and the weight of the second.
function pairs(places, count) {
  const first = places.map((place) => Math.min(Math.trunc(place), count - 1));
  return places.map((place, i) => [first[i], Math.min(first[i] + 1, count - 1), f32(place - first[i])]);
}

// Returns a function that gives a row of values [rows, stride], interpolated; the row is overwritten by the next.
function interpolated(values, stride, across, down) {
  const cache = range(2, () => ({ y: -1, row: new Float32Array(across.length) }));
  const rowAt = (y) => {
    const { row } = cache[y & 1];
    if (cache[y & 1].y === y) return row;
    cache[y & 1].y = y;
    across.forEach(([a, b, share], x) => {
      row[x] = f32(values[y * stride + a] * f32(1 - share)) + f32(values[y * stride + b] * share);
    });
    return row;
  };
  const out = new Float32Array(across.length);
  return (y) => {
    const [above, below, share] = [rowAt(down[y][0]), rowAt(down[y][1]), down[y][2]];
    for (let x = 0; x < out.length; x++) out[x] = f32(above[x] * f32(1 - share)) + f32(below[x] * share);
    return out;
  };
}

// Pastes the probabilities of a box into a mask {x, y, width, height, data} of the pixels around the box.
function paste(values, rows, columns, box, sides, threshold) {
  const low = [0, 1].map((axis) => clip(Math.floor(box[axis]) - 1, 0, sides[axis]));
  const high = [0, 1].map((axis) => clip(Math.ceil(box[axis + 2]) + 1, 0, sides[axis]));
  const [width, height] = high[0] > low[0] && high[1] > low[1] ? [high[0] - low[0], high[1] - low[1]] : [0, 0];
  const cells = (axis, count) => {
    const extent = f32(box[axis + 2] - box[axis]);
    const cell = (i) => {
      const share = f32(f32(low[axis] + i + 0.5 - box[axis]) / extent);
      const place = f32(f32(f32(f32(f32(share * 2) - 1) + 1) * count) / 2 - 0.5);
      return clip(f32((extent ? place : (count - 1) / 2) + 1), 0, count + 1);
    };
    return pairs(range(axis ? height : width, cell), count + 2);
  };
  const padded = new Float32Array((rows + 2) * (columns + 2)); // with a border of zeros
  for (let y = 0; y < rows; y++) {
    padded.set(values.subarray(y * columns, (y + 1) * columns), (y + 1) * (columns + 2) + 1);
  }
  const rowAt = interpolated(padded, columns + 2, cells(0, columns), cells(1, rows));
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) data.set(rowAt(y).map((value) => value >= f32(threshold)), y * width);
  return { x: low[0], y: low[1], width, height, data };
}

function decodeBoxes(task, { boxes, scores, labels, masks }, { image }, limits) {
  let pixels = 0;
  const objects = range(scores.data.length).filter((i) => scores.data[i] > 0).map((i) => {
    const box = Array.from(boxes.data.subarray(4 * i, 4 * i + 4));
    const object = { box, score: scores.data[i], label: Number(labels.data[i]) };
    if (!masks) return object;
    const [rows, columns] = masks.dims.slice(2);
    const values = masks.data.subarray(i * rows * columns, (i + 1) * rows * columns);
    const mask = paste(values, rows, columns, box, [image.width, image.height], task.mask_threshold);
    if ((pixels += mask.data.length) > limits.MAX_WEB_MASK_PIXELS) throw new Error('the masks are too large');
    return { ...object, mask };
  });
  return { objects };
}

function decodeMap(task, { logits }, { image: { width, height }, levels: [level] }) {
  const [classes, rows, columns] = logits.dims.slice(1);
  if (classes === 1 && task.threshold === null) throw new Error('logits of one class need a threshold in the metadata');
  const neighbours = (source, target) => {
    const step = task.align_corners ? (target > 1 ? (source - 1) / (target - 1) : 0) : source / target;
    const place = (i) => Math.max(f32(f32(f32(i + 0.5) * f32(step)) - 0.5), 0);
    return pairs(range(target, task.align_corners ? (i) => f32(i * f32(step)) : place), source);
  };
  const [across, down] = [neighbours(level.width, width), neighbours(level.height, height)];
  const lines = range(classes, (label) =>
    interpolated(logits.data.subarray(label * rows * columns), columns, across, down));
  const data = new (classes <= 256 ? Uint8Array : Int32Array)(width * height);
  const best = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    best.fill(-Infinity);
    lines.forEach((lineAt, label) => {
      const line = lineAt(y);
      for (let x = 0; x < width; x++) if (line[x] > best[x]) [best[x], data[y * width + x]] = [line[x], label];
    });
    if (classes > 1) continue;
    for (let x = 0; x < width; x++) data[y * width + x] = 1 / (1 + Math.exp(-best[x])) > task.threshold ? 1 : 0;
  }
  return { map: { width, height, data } };
}

// Returns the highest peaks of a keypoint, best first.
function peaksOf({ heat, tags, width, height }, { max_num_people: most, nms_kernel: side, detection_threshold: least }) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height;
  const offsets = range(side * side, (i) => [(i % side) - (side >> 1), Math.floor(i / side) - (side >> 1)]);
  const isPeak = (x, y, score) =>
    offsets.every(([dx, dy]) => !inside(x + dx, y + dy) || heat[(y + dy) * width + x + dx] <= score);
  const peaks = [];
  heat.forEach((score, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    if (score > f32(least) && isPeak(x, y, score)) peaks.push({ x, y, score, tags: tags.map((map) => map[i]) });
  });
  return peaks.sort((a, b) => b.score - a.score).slice(0, most);
}

// Returns the column of each row in the cheapest assignment, -1 for none; among equals, the one scipy returns.
function assignment(cost) {
  if (cost.length > cost[0].length) {
    const rows = assignment(cost[0].map((_, column) => cost.map((row) => row[column])));
    return cost.map((_, row) => rows.indexOf(row));
  }
  const [count, width] = [cost.length, cost[0].length];
  const [u, v] = [new Float64Array(count), new Float64Array(width)];
  const [ofRow, ofColumn] = [new Array(count).fill(-1), new Array(width).fill(-1)];
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
      row = before[column];
      ofColumn[column] = row;
      [ofRow[row], column] = [column, ofRow[row]];
    } while (row !== current);
  }
  return ofRow;
}

function assignByTag(peaks, order, threshold, most) {
  const people = [];
  for (const keypoint of order.filter((each) => peaks[each].length)) {
    const known = people.slice(0, most);
    const distances = peaks[keypoint].map(({ tags }) =>
      known.map(({ sums, count }) => Math.hypot(...tags.map((tag, level) => tag - sums[level] / count))));
    const costs = distances.map((row, i) => row.map((each) => roundEven(each) * 100 - peaks[keypoint][i].score));
    const columns = known.length ? assignment(costs) : [];
    peaks[keypoint].forEach(({ x, y, score, tags }, i) => {
      let person = distances[i][columns[i]] < threshold ? known[columns[i]] : null;
      if (!person) people.push((person = { points: peaks.map(() => [0, 0, 0]), sums: tags.map(() => 0), count: 0 }));
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
  const [count, height, width] = heatmaps.dims.slice(1);
  const [levels, area] = [allTags.dims[1], width * height];
  const map = (data, place) => data.subarray(place * area, (place + 1) * area);
  const maps = range(count, (k) => {
    const tags = range(levels, (level) => map(allTags.data, level * count + k));
    return { heat: map(heatmaps.data, k), tags, width, height };
  });
  const peaks = maps.map((each) => peaksOf(each, options));
  const found = peaks.flat().length;
  if (found > limits.MAX_PEAKS) throw new Error(`${found} peaks are too many, at most ${limits.MAX_PEAKS} are grouped`);
  // as in grouping.py: head and torso before limbs
  const coco = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16];
  const order = options.keypoint_order ?? (count === coco.length ? coco : range(count));
  const most = options.ignore_too_much ? options.max_num_people : undefined;
  return assignByTag(peaks, order, options.tag_threshold, most).map((points) => {
    const seen = range(count).filter((k) => points[k][2] > 0);
    const means = range(levels, (level) => f32(seen.reduce((sum, k) => // as NumPy sums few numbers
      f32(sum + maps[k].tags[level][points[k][1] * width + points[k][0]]), 0) / seen.length));
    const keypoints = points.map(([x, y, score], k) => {
      if (score > 0) return options.adjust ? shifted(maps[k], x, y) : [x, y, score];
      const filled = options.refine ? shifted(maps[k], ...bestPixel(maps[k], means)) : [0, 0, 0];
      return filled[2] > 0 ? filled : [x, y, score];
    });
    return { keypoints, score: points.reduce((sum, point) => sum + point[2], 0) / count };
  });
}

function inImage({ size, center, extent }, [x, y, score]) {
  const place = (value, axis) => (value / size[axis]) * extent[axis] + center[axis] - f32(0.5 * extent[axis]);
  return [place(x, 0), place(y, 1), score];
}

function decodePose(task, { heatmaps, tags }, { inputSize: size, scale, region }, limits) {
  const extent = size.map((side, axis) => side / scale[axis]);
  const center = extent.map((side, axis) => f32(side / 2 + (0.5 / scale[axis] - 0.5)));
  const shown = region ?? { size, center, extent: extent.map(f32) };
  const factor = [f32(shown.size[0] / heatmaps.dims[3]), f32(shown.size[1] / heatmaps.dims[2])];
  const moved = ([x, y, score]) => inImage(shown, [f32(x * factor[0]), f32(y * factor[1]), score]);
  const people = groupPeople(heatmaps, tags, task.grouping, limits);
  return { people: people.map(({ keypoints, score }) => ({ keypoints: keypoints.map(moved), score })) };
}

function decodeKeypoints(task, { keypoints, keypoint_scores: own, scores }, { region }) {
  const count = keypoints.dims[2];
  const point = (i) => inImage(region, [keypoints.data[2 * i], keypoints.data[2 * i + 1], own.data[i]]);
  const found = range(scores.data.length).filter((i) => scores.data[i] > 0);
  return { people: found.map((i) => ({ keypoints: range(count, (k) => point(i * count + k)), score: scores.data[i] })) };
}

const DECODERS = {
  detection: decodeBoxes,
  instance: decodeBoxes,
  semantic: decodeMap,
  pose: (task, ...others) => (task.grouping ? decodePose : decodeKeypoints)(task, ...others),
  classification: (task, { scores }) => ({ scores: Array.from(scores.data) }),
};

// Returns the predictions of a task: {objects}, {map}, {people} or {scores}.
export function decode(task, outputs, sample, limits) {
  const own = {};
  for (const name of task.outputs) {
    const key = task.name ? `${task.name}.${name}` : name;
    own[name] = outputs[key];
    if (!own[name]) throw new Error(`the network gives no output ${key}`);
    if (own[name].type === 'float32' && !own[name].data.every(Number.isFinite)) {
      throw new Error(`the output ${key} is not finite; has training diverged?`);
    }
  }
  return DECODERS[task.kind](task, own, sample, limits);
}

// --- the Worker: takes {files}, then {image, name}; answers {stage, share}, {ready}, {found} or {failed}

let network = null;

async function read(url, stage) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  let [got, total] = [0, Number(response.headers.get('Content-Length'))];
  const transform = (chunk, out) => {
    got += chunk.length;
    postMessage({ stage, share: total ? Math.min(got / total, 1) : null });
    out.enqueue(chunk);
  };
  return new Response(response.body.pipeThrough(new TransformStream({ transform }))).arrayBuffer();
}

// Returns what the page shows of the network. `files` has Blobs by name in a page of a single file.
async function open(files) {
  const url = (name) => (files[name] ? URL.createObjectURL(files[name]) : new URL(name, import.meta.url).href);
  const description = JSON.parse(new TextDecoder().decode(await read(url('network.json'), 'loading')));
  const adapter = description.gpu && await navigator.gpu?.requestAdapter();
  const isGpu = Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter); // software is slow
  const library = isGpu ? 'onnxruntime-web.gpu' : 'onnxruntime-web';
  const ort = await import(url(`${library}.js`));
  const cores = navigator.hardwareConcurrency ?? 1;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(cores, clip(Math.ceil(cores / 2), 2, 8)) : 1;
  ort.env.wasm.wasmBinary = await read(url(`${library}.wasm`), 'loading ONNX Runtime');
  const model = new Uint8Array(await read(url('network.onnx'), 'loading the network'));
  postMessage({ stage: 'preparing the network', share: null });
  const options = { executionProviders: [isGpu ? 'webgpu' : 'wasm'], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create(model, options).catch((error) => {
    throw new Error(`network.onnx is no network that ONNX Runtime Web can read (${error.message})`);
  });
  network = { ...description, ort, session };
  return { ...description, processor: isGpu ? 'GPU' : 'CPU', threads: ort.env.wasm.numThreads };
}

// Returns the bytes R, G, B, A of an image. A 2D canvas multiplies colours by alpha, so WebGL reads transparent images.
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let isOpaque = true;
  for (let i = 3; i < data.length && isOpaque; i += 4) isOpaque = data[i] === 255;
  const gl = isOpaque ? null : new OffscreenCanvas(1, 1).getContext('webgl2');
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return data;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(data.buffer));
  return data;
}

async function predict(given) {
  const { ort, session, metadata, limits } = network;
  const times = [performance.now()];
  const asStored = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
  const bitmap = given instanceof ImageBitmap ? given : await createImageBitmap(given, asStored).catch(() => {
    throw new Error('is no image that this browser can read, or is damaged');
  });
  const sample = preprocess(planesOf(pixelsOf(bitmap), bitmap.width, bitmap.height), metadata.steps, limits);
  const inputs = Object.entries(inputsOf(sample, metadata.batch, limits));
  times.push(performance.now());
  const tensors = inputs.map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]);
  const outputs = await session.run(Object.fromEntries(tensors));
  times.push(performance.now());
  const tasks = metadata.tasks.map((task) => [task.name, decode(task, outputs, sample, limits)]);
  for (const output of Object.values(outputs)) output.dispose();
  times.push(performance.now());
  return { bitmap, tasks: Object.fromEntries(tasks), times: times.slice(1).map((each, i) => each - times[i]) };
}

if (globalThis.WorkerGlobalScope) {
  let work = Promise.resolve();
  globalThis.onmessage = ({ data: { files, image, name } }) => {
    const answer = async () => {
      try {
        if (files) return postMessage({ ready: await open(files) });
        const found = await predict(image);
        postMessage({ found, name }, [found.bitmap]);
      } catch (error) {
        postMessage({ failed: `${name ? `${name}: ` : ''}${error.message ?? error}`, name });
      }
    };
    work = work.then(answer);
  };
}
