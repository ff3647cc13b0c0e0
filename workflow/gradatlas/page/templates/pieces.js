// Pieces of the page: base64 of gzip of a line of JSON and columns of decimals (pieces.py says how), unpacked once asked for.
async function bytesOf(id) {
  const packed = Uint8Array.from(atob($(`piece-${id}`).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const textOf = (bytes) => new TextDecoder().decode(bytes);

function numberOf(code, { digits, lowest, signed }) {
  if (!digits) return code ? code - 1 : null;
  const sign = signed && code % 2 ? -1 : 1, first = 10 ** (digits - 1);
  if (signed) code = Math.floor(code / 2);
  if (code < 2) return code ? 0 : null;
  const exponent = lowest + Math.floor((code - 2) / (9 * first)) - digits + 1;
  return sign * Number(`${first + ((code - 2) % (9 * first))}e${exponent}`);
}

function unchained(codes, { lowest, step, link }) {
  for (let i = link; i < codes.length; i++)
    codes[i] = codes[i - link] + (codes[i] % 2 ? -(codes[i] + 1) : codes[i]) / 2;
  return Array.from(codes, (code) => (code < 2 ? (code ? 0 : null) : Math.exp(lowest + (code - 2) * step)));
}

async function unpack(id) {
  const bytes = await bytesOf(id), end = bytes.indexOf(10), piece = JSON.parse(textOf(bytes.subarray(0, end)));
  let at = end + 1;
  for (const [name, column] of Object.entries(piece.columns)) {
    const codes = new Float64Array(column.length);
    for (let plane = 0; plane < column.bytes; plane++)
      for (let i = 0; i < column.length; i++) codes[i] += bytes[at++] * 256 ** plane;
    piece.columns[name] = column.step ? unchained(codes, column) : Array.from(codes, (code) => numberOf(code, column));
  }
  return piece;
}
const unpacked = new Map();
function piece(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpack(id));
  return unpacked.get(id);
}
