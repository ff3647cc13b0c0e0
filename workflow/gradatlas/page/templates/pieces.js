// Pieces of the page: base64 of gzip of JSON, unpacked once asked for.
async function bytesOf(id) {
  const packed = Uint8Array.from(atob($(`piece-${id}`).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const textOf = (bytes) => new TextDecoder().decode(bytes);

async function unpack(id) {
  return JSON.parse(textOf(await bytesOf(id)));
}
const unpacked = new Map();
function piece(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpack(id));
  return unpacked.get(id);
}
